package clients

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gantry/internal/testkit"
)

// TestAPISocket: a container of --use-api-socket has the socket, and the
// credentials of whoever made it, where docker's client looks for them.
func TestAPISocket(t *testing.T) {
	d := testkit.StartBusybox(t)
	dir := filepath.Dir(d.Socket) // where the client of the tests has its configuration
	read := func(args ...string) (string, error) {
		return d.Gantry(append(append([]string{"run", "--rm", "--use-api-socket"}, args...),
			"busybox", "sh", "-c", `test -S /var/run/docker.sock && echo socket; echo "at $DOCKER_CONFIG"; cat "$DOCKER_CONFIG/config.json"; stat -c %a:%u "$DOCKER_CONFIG/config.json"; true`)...)
	}
	if got, err := read(); err != nil || !strings.HasPrefix(got, "socket\nat \n") {
		t.Errorf("without credentials: %q %v", got, err)
	}
	secret := base64.StdEncoding.EncodeToString([]byte("someone:hidden"))
	config := `{"auths":{"registry.test":{"auth":"` + secret + `"},"token.test":{"identitytoken":"tok"}},"psFormat":"mine"}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := read()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"socket\nat /run/secrets/docker\n", `"auth": "` + secret + `"`, `"identitytoken": "tok"`, "}600:0\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	if strings.Contains(got, "psFormat") {
		t.Errorf("more than credentials: %s", got)
	}
	if got, err := read("-e", "DOCKER_CONFIG=/mine"); err != nil || !strings.HasPrefix(got, "socket\nat /mine\n") || strings.Contains(got, secret) {
		t.Errorf("with a configuration of its own: %q %v", got, err)
	}
	config = `{"auths":{"registry.test":{"auth":"!"}}}`
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "resolving credentials failed") {
		t.Errorf("credentials that can't be read: %v", err)
	}
}
