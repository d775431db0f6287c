package buildx

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/pb"

	"gantry/internal/cli/buildx/grammar"
	"gantry/internal/cli/buildx/solve"
)

// metadata turns the exporters' answers into what --metadata-file holds: values
// that are base64 of a JSON object become that object.
func metadata(res map[string]string) map[string]any {
	out := map[string]any{}
	for k, v := range res {
		out[k] = v
		b, err := base64.StdEncoding.DecodeString(v)
		if k == "result.json" {
			b, err = []byte(v), nil
		}
		if err != nil {
			continue
		}
		var object map[string]any
		var list []map[string]any
		if json.Unmarshal(b, &object) == nil && len(object) > 0 || json.Unmarshal(b, &list) == nil && len(list) > 0 {
			out[k] = json.RawMessage(b)
		}
	}
	return out
}

// writeMetadata replaces path in one step.
func writeMetadata(path string, m any) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// printCall prints the frontend's answer to a call. The exit code of checks that
// found something is 1.
func (a *App) printCall(c grammar.Call, res solve.Result) error {
	if err := printAnswer(a.Out, c, res); err != nil {
		return err
	}
	if n, err := strconv.Atoi(res.Call["result.statuscode"]); err == nil && n != 0 && !c.IgnoreStatus {
		return errQuiet{n}
	}
	return nil
}

func printAnswer(w io.Writer, c grammar.Call, res solve.Result) error {
	if c.Format == "json" && res.Call["result.json"] != "" {
		fmt.Fprintln(w, res.Call["result.json"])
		return nil
	}
	data := []byte(res.Call["result.json"])
	switch c.Name {
	case "outline":
		return outline.PrintOutline(data, w)
	case "targets":
		return targets.PrintTargets(data, w)
	case "subrequests.describe":
		return subrequests.PrintDescribe(data, w)
	case "lint":
		return printChecks(w, data, res.Source)
	}
	if txt, ok := res.Call["result.txt"]; ok {
		fmt.Fprint(w, txt)
		return nil
	}
	return fmt.Errorf("the frontend has no answer to the call %q", c.Name)
}

// printChecks prints what build checks found in the Dockerfile known as name.
func printChecks(w io.Writer, data []byte, name string) error {
	var found lint.LintResults
	if len(data) > 0 {
		if err := json.Unmarshal(data, &found); err != nil {
			return err
		}
	}
	switch n := len(found.Warnings); n {
	case 0:
	case 1:
		fmt.Fprintln(w, "Check complete, 1 warning has been found!")
	default:
		fmt.Fprintf(w, "Check complete, %d warnings have been found!\n", n)
	}
	renamed := func(s *pb.SourceInfo) *pb.SourceInfo {
		if s == nil || name == "" {
			return s
		}
		c := s.CloneVT()
		c.Filename = name
		return c
	}
	if err := found.PrintTo(w, renamed); err != nil {
		return err
	}
	if found.Error != nil {
		if len(found.Warnings) > 0 {
			fmt.Fprintln(w)
		}
		var b bytes.Buffer
		found.PrintErrorTo(&b, renamed)
		return errors.New(b.String())
	}
	if len(found.Warnings) == 0 {
		fmt.Fprintln(w, "Check complete, no warnings found.")
	}
	return nil
}
