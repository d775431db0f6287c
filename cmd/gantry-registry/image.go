package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"time"

	"gantry/internal/client"
	"gantry/internal/version"
)

// imageCommand makes an image of this program and loads it into the daemon, or
// writes it to a file.
func imageCommand(ctx context.Context, fs *flag.FlagSet, args []string, out io.Writer) error {
	tag := fs.String("tag", "gantry/registry:latest", "name of the image")
	file := fs.String("output", "", "write the image to a file instead of loading it, - for standard output")
	if err := fs.Parse(args); err != nil {
		return err
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	data, err := archive(program, *tag)
	if err != nil {
		return err
	}
	switch *file {
	case "":
		return load(ctx, data, *tag, out)
	case "-":
		_, err = out.Write(data)
		return err
	}
	return os.WriteFile(*file, data, 0o644)
}

func load(ctx context.Context, data []byte, tag string, out io.Writer) error {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///run/gantry/gantry.sock"
		if _, err := os.Stat("/run/gantry/gantry.sock"); err != nil {
			host = "unix:///var/run/docker.sock"
		}
	}
	c, err := client.New(client.Options{Host: host})
	if err != nil {
		return err
	}
	resp, err := c.Stream(ctx, client.Request{Method: http.MethodPost, Path: "/images/load?quiet=1", Body: bytes.NewReader(data), Header: http.Header{"Content-Type": {"application/x-tar"}}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var m struct {
			Error string `json:"error"`
		}
		if err := d.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return errors.New(m.Error)
		}
	}
	fmt.Fprintf(out, "Loaded image: %s\nRun it:  gantry run -d --name registry -p 127.0.0.1:5000:5000 -v registry:/var/lib/registry %s\n", tag, tag)
	return nil
}

// file is a member of a tar.
type file struct {
	name string
	mode int64
	dir  bool
	data []byte
}

// pack makes a tar of files, the same for the same files.
func pack(files []file) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if f.dir {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

// archive makes an archive that load takes, of one layer with the program. Equal
// programs give images of equal ids.
// Format: Docker image specification 1.2, as `docker save` writes it.
func archive(program []byte, tag string) ([]byte, error) {
	layer, err := pack([]file{{name: "gantry-registry", mode: 0o755, data: program}, {name: "etc/", mode: 0o755, dir: true}, {name: "tmp/", mode: 0o1777, dir: true}, {name: "var/", mode: 0o755, dir: true},
		{name: "var/lib/", mode: 0o755, dir: true}, {name: "var/lib/registry/", mode: 0o700, dir: true}})
	if err != nil {
		return nil, err
	}
	diff := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "created": time.Unix(0, 0).UTC().Format(time.RFC3339),
		"config": map[string]any{
			"Entrypoint": []string{"/gantry-registry"}, "Cmd": []string{"serve", "--listen", ":5000", "--data", "/var/lib/registry"},
			"ExposedPorts": map[string]any{"5000/tcp": struct{}{}}, "Volumes": map[string]any{"/var/lib/registry": struct{}{}},
			"Labels": map[string]string{"org.opencontainers.image.title": "Gantry registry", "org.opencontainers.image.version": version.Version},
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(diff[:])}},
		"history": []any{map[string]string{"created": time.Unix(0, 0).UTC().Format(time.RFC3339), "created_by": "gantry registry image"}},
	})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(config)
	id := hex.EncodeToString(sum[:])
	manifest, err := json.Marshal([]any{map[string]any{"Config": id + ".json", "RepoTags": []string{tag}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return nil, err
	}
	return pack([]file{{name: "layer.tar", mode: 0o644, data: layer}, {name: id + ".json", mode: 0o644, data: config}, {name: "manifest.json", mode: 0o644, data: manifest}})
}
