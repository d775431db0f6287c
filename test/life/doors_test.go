package life

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"gantry/internal/testkit"
)

// An authority signs certificates into a directory.
type authority struct {
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), serial: 1}
	a.key, a.cert = a.sign(t, "ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign writes name.pem and name-key.pem.
func (a *authority) sign(t *testing.T, name string, c *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a.serial++
	c.SerialNumber, c.Subject = big.NewInt(a.serial), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(a.dir, name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(t, filepath.Join(a.dir, name+"-key.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})))
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, made
}

func (a *authority) server(t *testing.T) {
	a.sign(t, "server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
}

func (a *authority) client(t *testing.T) {
	a.sign(t, "client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// TestMutualTLS: over TCP only clients of the authority are served, with
// certificates that a SIGHUP replaces; an upgrade keeps the port.
func TestMutualTLS(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	a.server(t)
	a.client(t)
	other.client(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().String()
	free.Close()
	in := func(name string) string { return filepath.Join(a.dir, name) }
	d := testkit.StartDaemon(t, "-H", "tcp://"+addr, "--tlsverify", "--tlscacert", in("ca.pem"), "--tlscert", in("server.pem"), "--tlskey", in("server-key.pem"))
	ask := func(ca, cert *authority) (string, error) {
		args := []string{"-H", "tcp://" + addr, "--tlsverify", "--tlscacert", filepath.Join(ca.dir, "ca.pem"), "--tlscert", filepath.Join(cert.dir, "client.pem"), "--tlskey", filepath.Join(cert.dir, "client-key.pem"), "version", "-f", "{{if .Server}}{{.Server.Version}}{{end}}"}
		cmd := exec.Command(d.Program("gantry"), args...)
		cmd.Env = append(os.Environ(), "GANTRY_HOST=", "DOCKER_HOST=", "DOCKER_CONTEXT=", "DOCKER_CONFIG="+a.dir)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := ask(a, a); err != nil || !strings.HasPrefix(out, "29.") {
		t.Errorf("a good client: %v %s", err, out)
	}
	if out, err := ask(a, other); err == nil {
		t.Errorf("a client of another authority is served: %s", out)
	}
	if out, err := ask(other, a); err == nil || !strings.Contains(out, "certificate") {
		t.Errorf("a server of another authority is believed: %v %s", err, out)
	}
	serial := func() int64 {
		pair, err := tls.LoadX509KeyPair(in("client.pem"), in("client-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	old := serial()
	a.server(t)
	if serial() != old {
		t.Error("the certificate changed by itself")
	}
	syscall.Kill(d.Pid(), syscall.SIGHUP)
	testkit.Eventually(t, "new certificate", func() bool { return serial() == a.serial })
	write(t, in("server.pem"), "broken")
	syscall.Kill(d.Pid(), syscall.SIGHUP)
	testkit.Eventually(t, "refused reload", func() bool { return strings.Contains(d.Log(), "TLS certificate") })
	if serial() != a.serial {
		t.Error("a broken file took the certificate away")
	}
	a.server(t)
	syscall.Kill(d.Pid(), syscall.SIGUSR2)
	testkit.Eventually(t, "upgrade", func() bool { return state(t, d).Attempt == 1 })
	if out, err := ask(a, a); err != nil || !strings.HasPrefix(out, "29.") {
		t.Errorf("after an upgrade: %v %s", err, out)
	}
	// An upgrade whose program refuses the configuration is no upgrade.
	write(t, in("server.pem"), "broken")
	if out, err := d.Gantry("system", "upgrade"); err == nil || !strings.Contains(err.Error(), "TLS certificate") {
		t.Errorf("an upgrade with a broken certificate: %v %s", err, out)
	}
	if out, err := d.Gantry("ps"); err != nil {
		t.Errorf("after it: %v %s", err, out)
	}
	a.server(t)
}

// TestSystemd has systemd look at the unit files, and plays systemd: a socket
// that is passed, the messages that are expected back, and the watchdog.
func TestSystemd(t *testing.T) {
	dir := t.TempDir()
	if verify, err := exec.LookPath("systemd-analyze"); err == nil {
		for _, name := range []string{"gantry.service", "gantry.socket"} {
			text, err := os.ReadFile("../../dist/" + name)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, name), strings.ReplaceAll(string(text), "@PREFIX@/bin", filepath.Dir(testkit.Bin(t, "gantryd"))))
		}
		out, err := exec.Command(verify, "verify", "--man=no", filepath.Join(dir, "gantry.service"), filepath.Join(dir, "gantry.socket")).CombinedOutput()
		if err != nil || strings.Contains(string(out), "gantry.") {
			t.Errorf("systemd-analyze: %v\n%s", err, out)
		}
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	sock, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "api.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	sock.SetUnlinkOnClose(false)
	defer sock.Close()
	passed, err := sock.File()
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	// LISTEN_PID must be the daemon's own: a shell sets it before it becomes one.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh", testkit.Bin(t, "gantryd"), "--data-root", dir+"/lib", "--exec-root", dir+"/run", "--config-file", "", "-H", "fd://")
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"), "WATCHDOG_USEC=200000")
	cmd.ExtraFiles = []*os.File{passed}
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, 256)
		for end := time.Now().Add(10 * time.Second); ; {
			notify.SetReadDeadline(end)
			n, err := notify.Read(buf)
			if err != nil {
				t.Errorf("no %s: %v", want, err)
				return
			}
			if strings.HasPrefix(string(buf[:n]), want) {
				return
			}
		}
	}
	expect("READY=1")
	expect("WATCHDOG=1")
	c := over(filepath.Join(dir, "api.sock"))
	if code, _ := get(t, c, "/_ping"); code != 200 {
		t.Error(code)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	expect("RELOADING=1")
	expect("READY=1")
	cmd.Process.Signal(syscall.SIGUSR2)
	expect("RELOADING=1")
	expect("READY=1")
	expect("WATCHDOG=1")
	if code, body := get(t, c, "/gantry/upgrade"); code != 200 || !strings.Contains(body, `"Attempt":1`) {
		t.Errorf("over systemd's socket after an upgrade: %d %s", code, body)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	expect("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "api.sock")); err != nil {
		t.Error("systemd's socket was removed")
	}
}
