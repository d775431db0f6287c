// Command volumeplugin is a volume driver for tests: it keeps volumes as
// directories below the directory that it is told as its argument.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	log.Printf("DEBUG=%s args=%v", os.Getenv("DEBUG"), os.Args[1:])
	if os.Getenv("DEBUG") == "fail" {
		log.Fatal("told to fail")
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGTERM) // the first process of a container has no other way
	go func() {
		<-ends
		os.Exit(0)
	}()
	dir := os.Args[1]
	if target := os.Getenv("SWAP"); target != "" {
		go swap(dir, target)
	}
	l, err := net.Listen("unix", "/run/docker/plugins/sample.sock")
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Name string }
		_ = json.NewDecoder(r.Body).Decode(&in)
		at := filepath.Join(dir, filepath.Base(in.Name))
		out := map[string]any{}
		var err error
		switch _, method, _ := strings.Cut(r.URL.Path, "."); method {
		case "Create":
			err = os.MkdirAll(at, 0o755)
		case "Remove":
			err = os.RemoveAll(at)
		case "Mount", "Path":
			out["Mountpoint"] = at
		case "Get":
			if _, err = os.Stat(at); err == nil {
				out["Volume"] = map[string]any{"Name": in.Name, "Mountpoint": at}
			}
		case "List":
			out["Volumes"] = []any{}
		case "Capabilities":
			out["Capabilities"] = map[string]string{"Scope": "local"}
		}
		if err != nil {
			out["Err"] = err.Error()
		}
		_ = json.NewEncoder(w).Encode(out)
	})))
}

// swap keeps exchanging the directory of each volume with a link to target, where
// there is a file of the plugin's.
func swap(dir, target string) {
	top := filepath.Dir(dir)
	own, link := filepath.Join(top, target), filepath.Join(top, "link")
	if err := os.MkdirAll(own, 0o755); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(own, "f"), []byte("plugin"), 0o644); err != nil {
		log.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil && !os.IsExist(err) {
		log.Fatal(err)
	}
	for ; ; time.Sleep(50 * time.Microsecond) {
		list, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, at := range list {
			_ = unix.Renameat2(unix.AT_FDCWD, at, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
		}
	}
}
