package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"gantry/internal/ociruntime/job"
	"gantry/internal/rootpath"
)

// What the child half is called in argv[0], which is how a program knows that
// it is one.
const (
	initName   = "gantry-init"
	reaperName = "/sbin/docker-init"
)

// ChildMain is the first thing in the main function of every program that calls
// Create or Exec, tests included. In the child half it never returns; elsewhere
// it returns at once.
func ChildMain() {
	if len(os.Args) == 0 {
		return
	}
	switch os.Args[0] {
	case initName:
		runtime.LockOSThread()
		os.Exit(childMain())
	case reaperName:
		os.Exit(reaperMain())
	}
}

// setName is what ps shows: an executed memfd has only its own name.
func setName(name string) {
	if p, err := unix.BytePtrFromString(name); err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0)
	}
}

// A child is the child half at work. All its steps run on one thread: that
// thread's credentials and namespaces are what the program gets.
type child struct {
	s       *setup
	job     *job.Job // nil for exec
	proc    *job.Process
	tree    *tree
	console int  // terminal slave, -1 for none
	sock    int  // to the parent
	inReady bool // the parent has been told that we are ready
}

func childMain() int {
	// The raw child had all signals blocked. From here on a deadly one ends
	// this process, as it should.
	var none [1]uint64
	sigmask(&none, nil)
	// Nobody in a joined pid namespace shall trace us (CVE-2016-9962); execve
	// resets it.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	setName(initName)
	c := &child{sock: syncFd, console: -1}
	err := c.run()
	if err == nil {
		return 0
	}
	c.report(err)
	var ee *ExecError
	if errors.As(err, &ee) {
		return ee.Code
	}
	return 1
}

// report tells the parent, or whoever reads standard error if there is none.
func (c *child) report(err error) {
	payload := []byte{0}
	var ee *ExecError
	if errors.As(err, &ee) {
		payload[0] = byte(ee.Code)
	}
	payload = append(payload, err.Error()...)
	if send(c.sock, frameError, payload) != nil && c.inReady {
		unix.Write(2, append(payload[1:], '\n'))
	}
}

// run returns only with an error, or after an edit.
func (c *child) run() error {
	f, err := recv(c.sock)
	if err != nil {
		return fmt.Errorf("receive the job: %w", err)
	}
	if f.kind != frameSetup {
		return errors.New("receive the job: the first message is of another kind")
	}
	if c.s, err = decodeSetup(f.payload, f.fds); err != nil {
		return err
	}
	c.tree = &tree{s: c.s, devpts: -1}
	if c.s.edit {
		return c.edit()
	}
	if c.s.exec {
		c.proc, err = job.DecodeProcess(c.s.job)
	} else if c.job, err = job.Decode(c.s.job); err == nil {
		c.proc, c.tree.job = &c.job.Process, c.job
	}
	if err != nil {
		return err
	}
	if err := c.isolate(); err != nil {
		return err
	}
	if err := c.ready(); err != nil {
		return err
	}
	if c.job != nil && len(c.job.Hooks.StartContainer) > 0 {
		if err := RunHooks(c.job.Hooks.StartContainer, HookState(c.job, "created", os.Getpid())); err != nil {
			return fmt.Errorf("startContainer hook: %w", err)
		}
	}
	return c.become()
}

// isolate does everything up to readiness.
func (c *child) isolate() error {
	if _, err := unix.Setsid(); err != nil && err != unix.EPERM {
		return fmt.Errorf("setsid: %w", err)
	}
	if c.s.cgroupNS {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("make a cgroup namespace: %w", err)
		}
	}
	if c.job == nil || c.s.joinMount {
		return c.enter()
	}
	if err := c.names(); err != nil {
		return err
	}
	if err := c.tree.prepare(); err != nil {
		return err
	}
	if c.proc.Terminal {
		if err := c.openConsole(); err != nil {
			return err
		}
		if c.tree.ownDev {
			if err := c.tree.mountConsole(c.console); err != nil {
				return fmt.Errorf("mount /dev/console: %w", err)
			}
		}
	}
	if c.s.hooks {
		if err := send(c.sock, frameHooks, nil); err != nil {
			return err
		}
		if f, err := recv(c.sock); err != nil || f.kind != frameHooks {
			return errors.New("hooks: the parent is gone")
		}
	}
	if err := RunHooks(c.job.Hooks.CreateContainer, HookState(c.job, "creating", os.Getpid())); err != nil {
		return fmt.Errorf("createContainer hook: %w", err)
	}
	return c.tree.enter()
}

// enter joins the mount namespace of an existing container. The thread needs a
// file system context of its own for that (setns(2)).
func (c *child) enter() error {
	if c.s.joinMount {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare file system context: %w", err)
		}
		if err := unix.Setns(int(c.s.mountNS), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("join mount namespace: %w", err)
		}
		unix.Close(int(c.s.mountNS))
	}
	root, err := rootpath.Open("/")
	if err != nil {
		return err
	}
	c.tree.root = root
	if c.proc.Terminal {
		return c.openConsole()
	}
	return nil
}

// names sets host and domain name and brings the loopback interface of a new
// network namespace up.
func (c *child) names() error {
	if c.job.Hostname != "" {
		if err := unix.Sethostname([]byte(c.job.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", c.job.Hostname, err)
		}
	}
	if c.job.Domainname != "" {
		if err := unix.Setdomainname([]byte(c.job.Domainname)); err != nil {
			return fmt.Errorf("set domainname %q: %w", c.job.Domainname, err)
		}
	}
	if n := c.job.Namespace(unix.CLONE_NEWNET); n != nil && n.Path == "" {
		if err := loopbackUp(); err != nil {
			return fmt.Errorf("bring the loopback interface up: %w", err)
		}
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(s, unix.SIOCGIFFLAGS, req); err != nil {
		return err
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req)
}

// ready hands the terminal over, says that all is prepared and waits to be
// released.
func (c *child) ready() error {
	if c.s.gateFifo {
		// Nobody listens after the release: what can be found out about the
		// program is found out now.
		if _, err := c.lookup(); err != nil {
			return err
		}
	}
	if err := send(c.sock, frameReady, encodeMountIDs(c.tree.ids)); err != nil {
		return err
	}
	c.inReady = true
	if c.s.gateFifo {
		var b [1]byte
		for {
			n, err := unix.Read(int(c.s.fifo), b[:])
			if err == unix.EINTR {
				continue
			}
			if err != nil || n != 1 {
				return fmt.Errorf("wait for the start: %w", err)
			}
			unix.Close(int(c.s.fifo))
			return nil
		}
	}
	// Until it is released, the process lives no longer than its parent: the
	// socket ends. A signal (PR_SET_PDEATHSIG) would come when the thread that
	// cloned ends, and threads of a Go program do.
	f, err := recv(c.sock)
	if err != nil || f.kind != frameGo {
		os.Exit(1) // the parent has gone or given up
	}
	return nil
}
