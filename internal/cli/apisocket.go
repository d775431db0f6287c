package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"gantry/internal/cli/conf"
	"gantry/internal/client"
	"gantry/internal/wire"
)

// Where a container of --use-api-socket finds the socket and the credentials:
// Docker's places.
const (
	apiSocket     = "/var/run/docker.sock"
	apiConfig     = "/run/secrets/docker/config.json"
	apiConfigVar  = "DOCKER_CONFIG"
	apiConfigMode = 0o600
)

// useAPISocket gives the container to be the socket that this command itself talks
// to, if that is on this machine, and returns the config.json with this user's
// credentials that is to be put into it. That is nil if there are none, or the
// container has a configuration of its own.
func useAPISocket(a *App, req *wire.CreateRequest) ([]byte, error) {
	source, local := strings.CutPrefix(a.target.Host, "unix://")
	if !local {
		source = apiSocket
	}
	req.HostConfig.Mounts = append(req.HostConfig.Mounts, wire.Mount{Type: "bind", Source: source, Target: apiSocket})
	if slices.ContainsFunc(req.Env, func(kv string) bool { return strings.HasPrefix(kv, apiConfigVar+"=") }) {
		return nil, nil
	}
	all, err := a.config().All()
	if err != nil {
		return nil, fmt.Errorf("resolving credentials failed: %w", err)
	}
	file, err := credentialsFile(all)
	if file != nil {
		req.Env = append(req.Env, apiConfigVar+"="+path.Dir(apiConfig))
	}
	return file, err
}

// credentialsFile is a config.json with credentials and nothing else; nil for
// none. Pure.
func credentialsFile(all map[string]conf.Auth) ([]byte, error) {
	auths := map[string]conf.Auth{}
	for server, a := range all {
		if a.Username != "" || a.Password != "" {
			a.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))
		}
		a.Username, a.Password, a.ServerAddress = "", "", ""
		if a != (conf.Auth{}) {
			auths[server] = a
		}
	}
	if len(auths) == 0 {
		return nil, nil
	}
	return json.MarshalIndent(map[string]any{"auths": auths}, "", "\t")
}

// putCredentials puts a config.json into a container that does not run yet.
func putCredentials(ctx context.Context, a *App, id string, file []byte) error {
	if file == nil {
		return nil
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	if err := t.WriteHeader(&tar.Header{Name: strings.TrimPrefix(apiConfig, "/"), Mode: apiConfigMode, Size: int64(len(file)), ModTime: time.Now()}); err != nil {
		return err
	}
	if _, err := t.Write(file); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	res, err := a.api.Stream(ctx, client.Request{Method: http.MethodPut, Path: containerPath(id, "archive"), Query: url.Values{"path": {"/"}}, Body: &b, Header: http.Header{"Content-Type": {"application/x-tar"}}})
	if err != nil {
		return fmt.Errorf("injecting docker config.json into container failed: %w", err)
	}
	return res.Body.Close()
}
