package hello

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"gantry/internal/content"
	"gantry/internal/image"
)

func TestEnsure(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	st, err := content.Open(t.Context(), content.Options{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	images := image.New(image.Options{Content: st})
	program := bytes.Repeat([]byte("program "), 1000)
	var ids []string
	for _, ref := range []string{"hello", "hello-world:latest", "hello:latest", "other"} {
		if err := Ensure(t.Context(), images, program, ref); err != nil {
			t.Fatal(ref, err)
		}
		i, err := images.Resolve(t.Context(), ref, nil)
		if !Names(ref) {
			if err == nil {
				t.Errorf("%s was loaded", ref)
			}
			continue
		}
		if err != nil {
			t.Fatal(ref, err)
		}
		ids = append(ids, i.ID.String())
		if !slices.Equal(i.Config.Config.Cmd, []string{"/hello"}) || len(i.Config.Config.Entrypoint) != 0 {
			t.Errorf("%+v", i.Config.Config)
		}
		dirs, err := images.Lower(t.Context(), i)
		if err != nil || len(dirs) != 1 {
			t.Fatal(dirs, err)
		}
		got, err := os.ReadFile(dirs[0] + "/hello")
		if err != nil || !bytes.Equal(got, program) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if fi, err := os.Stat(dirs[0] + "/hello"); err != nil || fi.Mode() != 0o755 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	}
	if len(ids) != 3 || len(slices.Compact(ids)) != 1 {
		t.Errorf("ids %q", ids)
	}
}
