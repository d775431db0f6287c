package config

import (
	"testing"
	"time"
)

func TestBuilderHistory(t *testing.T) {
	for text, want := range map[string]struct {
		age     time.Duration
		entries int64
		ok      bool
	}{
		`{}`: {0, 0, true},
		`{"history":{"maxAge":"12h","maxEntries":3}}`: {12 * time.Hour, 3, true},
		`{"history":{"maxAge":"90"}}`:                 {90 * time.Second, 0, true},
		`{"history":{"maxAge":"x"}}`:                  {},
		`{"history":{"maxAge":"-1h"}}`:                {},
		`{"history":{"maxEntries":0}}`:                {},
		`{"history":{"entries":1}}`:                   {},
	} {
		var c Config
		err := builder().json(&c, []byte(text))
		if (err == nil) != want.ok || want.ok && (c.Builder.HistoryAge != want.age || c.Builder.HistoryEntries != want.entries) {
			t.Errorf("%s: %+v, %v", text, c.Builder, err)
		}
	}
}
