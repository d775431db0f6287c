package cli

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// setTimes puts since and until into q in the API's form.
func setTimes(q url.Values, since, until string) error {
	for k, v := range map[string]string{"since": since, "until": until} {
		if v == "" {
			continue
		}
		t, err := apiTime(v, time.Now())
		if err != nil {
			return fmt.Errorf("invalid value for %q: %w", k, err)
		}
		q.Set(k, t)
	}
	return nil
}

// apiTime turns a point in time as a user writes it (a duration before now, a Unix
// time, a date) into seconds.nanoseconds.
func apiTime(v string, now time.Time) (string, error) {
	if d, err := time.ParseDuration(v); v != "0" && err == nil {
		return unixTime(now.Add(-d)), nil
	}
	if s, frac, _ := strings.Cut(v, "."); isNumber(s) && (frac == "" || isNumber(frac)) {
		return v, nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15",
		"2006-01-02Z07:00", "2006-01-02", "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00",
	} {
		if t, err := time.ParseInLocation(layout, v, now.Location()); err == nil {
			return unixTime(t), nil
		}
	}
	return "", fmt.Errorf("failed to parse value as time or duration: %q", v)
}

func isNumber(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}

func unixTime(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
