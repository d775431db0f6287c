package network

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestMain runs the tests in a fresh network and mount namespace that plays the
// host, so that the machine's own is never touched.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_TEST_HOSTNS") == "" && os.Geteuid() == 0 {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), "GANTRY_TEST_HOSTNS=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "in the test's own namespaces:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("GANTRY_TEST_HOSTNS") != "" {
		// What is mounted here must not appear outside.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
			fmt.Fprintln(os.Stderr, err, string(out))
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// needRoot skips a test that needs the kernel, or fails it where everything
// must run.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getenv("GANTRY_TEST_HOSTNS") != "" {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("kernel tests need root")
	}
	t.Skip("kernel tests need root")
}
