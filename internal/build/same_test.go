package build

import (
	"encoding/json"
	"reflect"
	"testing"
)

func TestTimeless(t *testing.T) {
	parse := func(s string) (v any) {
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			t.Fatal(err)
		}
		return timeless(v)
	}
	const a = `{"predicate":{"metadata":{"buildInvocationID":"a","buildStartedOn":"1","buildFinishedOn":"2","reproducible":false},"materials":[{"uri":"x","startedOn":"1"}]}}`
	for _, c := range []struct {
		b    string
		same bool
	}{
		{`{"predicate":{"metadata":{"buildInvocationID":"b","buildStartedOn":"3","reproducible":false},"materials":[{"uri":"x"}]}}`, true},
		{`{"predicate":{"metadata":{"reproducible":true},"materials":[{"uri":"x"}]}}`, false},
		{`{"predicate":{"metadata":{"reproducible":false},"materials":[{"uri":"y"}]}}`, false},
	} {
		if got := reflect.DeepEqual(parse(a), parse(c.b)); got != c.same {
			t.Errorf("%s: %v", c.b, got)
		}
	}
}
