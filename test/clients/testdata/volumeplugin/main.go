// Command volumeplugin is a volume driver for tests: it keeps volumes as
// directories below the directory that it is told as its argument.
package main

import (
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	log.Printf("DEBUG=%s args=%v", os.Getenv("DEBUG"), os.Args[1:])
	if os.Getenv("DEBUG") == "fail" {
		log.Fatal("told to fail")
	}
	dir := os.Args[1]
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
