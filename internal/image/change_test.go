package image

import (
	"encoding/json"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"gantry/internal/errs"
)

func TestChange(t *testing.T) {
	for _, tc := range []struct {
		name    string
		from    string // JSON of the configuration before
		changes []string
		want    string
	}{
		{"several lines", ``, []string{"ENV A=1\nCMD [\"true\"]\nLABEL x=y"}, `{"Env":["A=1"],"Cmd":["true"],"Labels":{"x":"y"}}`},
		{"shell form", ``, []string{"CMD echo $HOME  now"}, `{"Cmd":["/bin/sh","-c","echo $HOME  now"]}`},
		{"own shell", ``, []string{`SHELL ["/bin/bash", "-ec"]`, "CMD x"}, `{"Cmd":["/bin/bash","-ec","x"],"Shell":["/bin/bash","-ec"]}`},
		{"entrypoint drops the command", `{"Cmd":["old"]}`, []string{`entrypoint ["a", "b"]`}, `{"Entrypoint":["a","b"]}`},
		{"env forms", `{"Env":["PATH=/bin","A=0"]}`, []string{`ENV A="x y" B=p\ q C='$Z "'`, "ENV D all of  it", `ENV E=a\"b F=""`},
			`{"Env":["PATH=/bin","A=x y","B=p q","C=$Z \"","D=all of  it","E=a\"b","F="]}`},
		{"label quotes", `{"Labels":{"a":"1"}}`, []string{`LABEL "com.example.x"="a b" y=2 a=`}, `{"Labels":{"a":"","com.example.x":"a b","y":"2"}}`},
		{"expose", ``, []string{"EXPOSE 80 53/udp 8000-8002/TCP"}, `{"ExposedPorts":{"53/udp":{},"80/tcp":{},"8000/tcp":{},"8001/tcp":{},"8002/tcp":{}}}`},
		{"volume", ``, []string{`VOLUME ["/a b"]`, "VOLUME /c /d"}, `{"Volumes":{"/a b":{},"/c":{},"/d":{}}}`},
		{"workdir", `{"WorkingDir":"/a"}`, []string{"WORKDIR b", "WORKDIR c/"}, `{"WorkingDir":"/a/b/c/"}`},
		{"workdir first", ``, []string{"WORKDIR b"}, `{"WorkingDir":"/b"}`},
		{"user, signal, onbuild", ``, []string{"USER 1:2", "STOPSIGNAL SIGQUIT", "ONBUILD RUN x  y"}, `{"User":"1:2","StopSignal":"SIGQUIT","OnBuild":["RUN x  y"]}`},
		{"healthcheck", ``, []string{"HEALTHCHECK --interval=5s --timeout=1m --start-period=2s --start-interval=1s --retries=4 CMD curl -f x || exit 1"},
			`{"Healthcheck":{"Test":["CMD-SHELL","curl -f x || exit 1"],"Interval":5000000000,"Timeout":60000000000,"StartPeriod":2000000000,"StartInterval":1000000000,"Retries":4}}`},
		{"healthcheck words", ``, []string{`HEALTHCHECK CMD ["a","b"]`}, `{"Healthcheck":{"Test":["CMD","a","b"]}}`},
		{"healthcheck none", ``, []string{"HEALTHCHECK none"}, `{"Healthcheck":{"Test":["NONE"]}}`},
		{"continued, commented, blank", ``, []string{"# no\n\nENV A=1 \\\n B=2"}, `{"Env":["A=1","B=2"]}`},
		{"nothing", ``, nil, `{}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var c dockerspec.DockerOCIImageConfig
			if tc.from != "" {
				if err := json.Unmarshal([]byte(tc.from), &c); err != nil {
					t.Fatal(err)
				}
			}
			if err := Change(&c, tc.changes); err != nil {
				t.Fatal(err)
			}
			var want dockerspec.DockerOCIImageConfig
			if err := json.Unmarshal([]byte(tc.want), &want); err != nil {
				t.Fatal(err)
			}
			got, _ := json.Marshal(c)
			wanted, _ := json.Marshal(want)
			if string(got) != string(wanted) {
				t.Errorf("got  %s\nwant %s", got, wanted)
			}
		})
	}
}

func TestChangeRefuses(t *testing.T) {
	for change, text := range map[string]string{
		"BOGUS":                            "BOGUS is not a valid change command",
		"bogus x":                          "BOGUS is not a valid change command",
		"RUN x":                            "RUN is not a valid change command",
		"CMD":                              "CMD requires at least one argument",
		"ENV A":                            "ENV must have two arguments",
		"ENV A=1 B":                        `Syntax error - can't find = in "B". Must be of the form: name=value`,
		`ENV A="x`:                         `ENV: unterminated quote in "A=\"x"`,
		"LABEL =x":                         "LABEL names can not be blank",
		"EXPOSE x":                         "invalid containerPort: x",
		"EXPOSE 70000":                     "invalid containerPort: 70000",
		"EXPOSE 9-8":                       "invalid containerPort: 9-8",
		"EXPOSE 80/foo":                    "invalid containerPort: 80/foo",
		`VOLUME [""]`:                      "VOLUME specified can not be an empty string",
		"SHELL bash":                       "SHELL requires the arguments to be in JSON form",
		"ONBUILD FROM x":                   "FROM isn't allowed as an ONBUILD trigger",
		"ONBUILD ONBUILD RUN x":            "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
		"HEALTHCHECK x":                    `Unknown type "X" in HEALTHCHECK (try CMD)`,
		"HEALTHCHECK CMD":                  "Missing command after HEALTHCHECK CMD",
		"HEALTHCHECK NONE x":               "HEALTHCHECK NONE takes no arguments",
		"HEALTHCHECK --retries=0 CMD x":    "--retries must be at least 1 (not 0)",
		"HEALTHCHECK --interval=1ns CMD x": `Interval "interval" cannot be less than 1ms`,
		"HEALTHCHECK --what=1 CMD x":       "unknown flag: what",
	} {
		err := Change(new(dockerspec.DockerOCIImageConfig), []string{change})
		if !errs.Is(err, errs.Invalid) || err.Error() != text {
			t.Errorf("%s: got %v, want %s", change, err, text)
		}
	}
}

func FuzzChange(f *testing.F) {
	for _, s := range []string{`ENV A="x y" B=p\ q`, "EXPOSE 1-2/tcp", `CMD ["a"]`, "HEALTHCHECK --interval=1s CMD x", "LABEL a b", "VOLUME /x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var c dockerspec.DockerOCIImageConfig
		if err := Change(&c, []string{s}); err != nil && !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", s, err)
		}
	})
}
