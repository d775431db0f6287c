package plan

import (
	"reflect"
	"testing"
)

func TestLogLimits(t *testing.T) {
	for _, c := range []struct {
		log    Log
		want   LogLimits
		failed string
	}{
		{Log{Driver: "json-file"}, LogLimits{MaxSize: 20e6, MaxFile: 5}, ""},
		{Log{Driver: "json-file", Options: map[string]string{"max-file": "2", "compress": "true"}}, LogLimits{MaxSize: 50e6, MaxFile: 2, Compress: true}, ""},
		{Log{Driver: "json-file", Options: map[string]string{"max-size": "1m"}}, LogLimits{MaxSize: 1e6, MaxFile: 1}, ""},
		{Log{Driver: "fluentd", Options: map[string]string{"cache-max-size": "1m", "cache-max-file": "2", "cache-compress": "false"}}, LogLimits{MaxSize: 1e6, MaxFile: 2}, ""},
		{Log{Driver: "gelf"}, LogLimits{MaxSize: 20e6, MaxFile: 5, Compress: true}, ""},
		{Log{Driver: "json-file", Options: map[string]string{"max-size": "10m", "max-file": "3", "compress": "true"}}, LogLimits{MaxSize: 10000000, MaxFile: 3, Compress: true}, ""},
		{Log{Driver: "local"}, LogLimits{MaxSize: 20e6, MaxFile: 5, Compress: true}, ""},
		{Log{Driver: "json-file", Options: map[string]string{"max-size": "-1"}}, LogLimits{MaxSize: -1, MaxFile: 1}, ""},
		{Log{Driver: "json-file", Options: map[string]string{"max-size": "x"}}, LogLimits{}, "invalid size: 'x'"},
		{Log{Driver: "json-file", Options: map[string]string{"max-file": "0"}}, LogLimits{}, "max-file cannot be less than 1"},
		{Log{Driver: "json-file", Options: map[string]string{"compress": "true", "max-size": "1m"}}, LogLimits{}, "compress cannot be true when max-file is less than 2 or max-size is not set"},
	} {
		got, err := c.log.Limits()
		if c.failed != "" {
			if want := "failed to create task for container: failed to initialize logging driver: " + c.failed; err == nil || err.Error() != want {
				t.Errorf("%+v: got %v, want %s", c.log, err, want)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%+v: got %+v, %v", c.log, got, err)
		}
	}
	d := recordingHost()
	d.LogOptions = map[string]string{"max-size": "5m", "max-file": "2"}
	p := create(t, `{"Cmd":["x"],"Labels":{"l":"1"},"Env":["E=2"],"HostConfig":{"LogConfig":{"Config":{"max-file":"7","labels":"l,m","env":"E"}}}}`, nil, d)
	if p.Log.Options["max-size"] != "5m" || p.Log.Options["max-file"] != "7" {
		t.Errorf("got %+v", p.Log)
	}
	if got, err := p.LogInfo("i", "n").Attrs(); err != nil || !reflect.DeepEqual(got, map[string]string{"l": "1", "E": "2"}) {
		t.Errorf("attributes %v", got)
	}
	p = create(t, `{"Cmd":["x"],"HostConfig":{"LogConfig":{"Type":"local"}}}`, nil, d)
	if len(p.Log.Options) != 0 {
		t.Errorf("another driver's options: %+v", p.Log)
	}
}

func TestCpuLists(t *testing.T) {
	for _, s := range []string{"0-4000000000", "1-", "-1", "2-1", "0,,1", "0-1-2", "a"} {
		if got, err := parseSet(s); err == nil {
			t.Errorf("%q: got %v", s, got)
		}
	}
	got, err := parseSet("0-2,7")
	if err != nil || len(got) != 4 || !got[7] {
		t.Errorf("got %v, %v", got, err)
	}
}
