package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate and writes it and its key to dir/name.pem and
// dir/name-key.pem. Without a by it signs itself.
func issue(t *testing.T, dir, name string, by *authority, use ...x509.ExtKeyUsage) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: use, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	parent := by
	if by == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		parent = &authority{tmpl, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// TestMutualTLS: over TCP the daemon serves those whose certificate it can
// verify, beside its unix socket, and nobody else.
func TestMutualTLS(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	ca := issue(t, dir, "ca", nil)
	issue(t, dir, "server", ca, x509.ExtKeyUsageServerAuth)
	issue(t, dir, "client", ca, x509.ExtKeyUsageClientAuth)
	issue(t, dir, "stranger", issue(t, dir, "other", nil), x509.ExtKeyUsageClientAuth)
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	d := testkit.StartDaemon(t, "-H", "tcp://"+addr, "--tlsverify", "--tlscacert", in("ca.pem"), "--tlscert", in("server.pem"), "--tlskey", in("server-key.pem"))

	programs := []string{d.Program("gantry")}
	if docker, err := exec.LookPath("docker"); err == nil {
		programs = append(programs, docker)
	}
	for _, p := range programs {
		call := func(args ...string) (string, error) {
			cmd := exec.Command(p, append([]string{"-H", "tcp://" + addr}, args...)...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DOCKER_CONFIG=" + dir}
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		good := []string{"--tlsverify", "--tlscacert", in("ca.pem"), "--tlscert", in("client.pem"), "--tlskey", in("client-key.pem")}
		if out, err := call(append(good, "version", "-f", "{{.Server.Os}}")...); err != nil || strings.TrimSpace(out) != "linux" {
			t.Errorf("%s: %v: %s", p, err, out)
		}
		if out, err := call("--tls", "--tlscacert", in("ca.pem"), "version"); err == nil {
			t.Errorf("%s without a certificate: %s", p, out)
		}
		if out, err := call("version"); err == nil {
			t.Errorf("%s without TLS: %s", p, out)
		}
		bad := []string{"--tlsverify", "--tlscacert", in("ca.pem"), "--tlscert", in("stranger.pem"), "--tlskey", in("stranger-key.pem")}
		if out, err := call(append(bad, "version")...); err == nil {
			t.Errorf("%s with a stranger's certificate: %s", p, out)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	for name, version := range map[string]uint16{"TLS 1.1": tls.VersionTLS11, "no certificate": tls.VersionTLS13} {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS10, MaxVersion: version}}}
		if resp, err := c.Get("https://" + addr + "/_ping"); err == nil {
			t.Errorf("%s: %s", name, resp.Status)
			resp.Body.Close()
		}
	}
	if got := d.OK(t, "info", "-f", "{{.OSType}}"); got != "linux" {
		t.Errorf("the unix socket: %q", got)
	}
}

// TestInheritedSockets: systemd passes a unix socket and a TCP one; the daemon
// serves both and leaves the socket's file alone.
func TestInheritedSockets(t *testing.T) {
	d := testkit.StartDaemon(t)
	d.Stop(t)
	path := filepath.Join(filepath.Dir(d.Socket), "activated.sock")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	u.(*net.UnixListener).SetUnlinkOnClose(false)
	defer u.Close()
	file, err := u.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	start := func(hosts ...string) (*exec.Cmd, *bytes.Buffer) {
		// LISTEN_PID is the number of the process that is meant: only the
		// shell that becomes the daemon knows it.
		args := []string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh", d.Program("gantryd"), "--data-root", d.Root, "--exec-root", d.Run, "--pidfile", "", "--config-file", ""}
		for _, h := range hosts {
			args = append(args, "-H", h)
		}
		cmd, out := exec.Command("sh", args...), &bytes.Buffer{}
		cmd.ExtraFiles = []*os.File{file}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, out
	}
	get := func(socket string) string {
		c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
		resp, err := c.Get("http://gantry/_ping")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}

	cmd, out := start("fd://", "unix://"+d.Socket)
	// It is there before the daemon is: the answer waits.
	if got := get(path); got != "OK" {
		t.Errorf("fd://: %s", got)
	}
	testkit.Eventually(t, "the second socket answers", func() bool { return get(d.Socket) == "OK" })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("systemd's socket: %v", err)
	}

	cmd, out = start("fd://7")
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "listen on fd://7: no such socket was passed by systemd") {
		t.Errorf("%v\n%s", err, out)
	}
	nothing := exec.Command(d.Program("gantryd"), "--data-root", d.Root, "--exec-root", d.Run, "--pidfile", "", "--config-file", "", "-H", "fd://")
	if text, err := nothing.CombinedOutput(); err == nil || !strings.Contains(string(text), "no sockets were passed by systemd") {
		t.Errorf("%v\n%s", err, text)
	}
}
