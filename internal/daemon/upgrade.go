package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"gantry/internal/daemon/handover"
	"gantry/internal/daemon/listen"
	"gantry/internal/errs"
	"gantry/internal/server"
	"gantry/internal/version"
)

// The upgrade, in this order, since the store has one writer:
//
//	ask      the new program checks the configuration and says that it can take
//	         over; this one serves meanwhile, and goes on if it can't
//	take     the sockets take no more connections: clients queue in the kernel;
//	         requests under way end, idle connections are kept
//	close    the parts are closed as at an end; locks, pid file and sockets stay
//	execute  the new program, in the same process
//	open     as at any start; containers are adopted, they notice nothing. If
//	         that fails, panics or takes too long, the old program is executed
//	         again and serves on
//
// Streams (attach, exec, logs, events, wait) end cleanly with the old program.

const (
	drainTime  = 10 * time.Second // that requests under way have to end
	comeUpTime = 60 * time.Second // that a new program has to be ready
)

// upgrades is what the API asks about upgrades.
type upgrades struct{ *Daemon }

// Upgrade has the program at path, the running one's path if empty, take over
// once the request is answered. It returns what the state is before.
func (u upgrades) Upgrade(ctx context.Context, path string) (server.UpgradeState, error) {
	if path == "" {
		path = ownProgram()
	}
	now := u.State(ctx)
	if !strings.HasPrefix(path, "/") {
		return now, errs.New(errs.Invalid, "the path of the new program must be absolute: %q", path)
	}
	if err := handover.Ask(ctx, path, u.args); err != nil {
		u.log.Error("no upgrade", "program", path, "err", err)
		return now, err
	}
	select {
	case u.next <- path:
		return now, nil
	default:
		return now, errs.New(errs.Conflict, "an upgrade is under way")
	}
}

// State says which program serves, and how the last upgrade ended.
func (u upgrades) State(context.Context) server.UpgradeState {
	s := server.UpgradeState{Version: version.Version, Commit: version.Commit, Program: ownProgram()}
	if h := u.handed; h != nil {
		s.Attempt, s.Error = h.Attempt, h.Failed
	}
	return s
}

// ownProgram is where the running program was, or its successor is.
func ownProgram() string {
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return os.Args[0]
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// upgradeBySignal is the upgrade to the program at the running one's path.
func (u upgrades) upgradeBySignal(ctx context.Context) {
	if _, err := u.Upgrade(ctx, ""); err != nil {
		u.log.Error("the upgrade was refused", "err", err)
	}
}

// handOver lets go of everything and executes program. It returns only if
// neither that nor this program again can be executed.
func (u upgrades) handOver(ctx context.Context, program string) error {
	ctx = context.WithoutCancel(ctx)
	u.log.Info("handing over", "program", program)
	_ = listen.Notify("RELOADING=1")
	// Until the next program listens for them these signals would end it.
	signal.Ignore(syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	u.upgrading = true
	for _, o := range u.doors {
		if o.kept != nil {
			o.kept.Take()
		}
	}
	drain, cancel := context.WithTimeout(ctx, drainTime)
	u.server.Drain(drain)
	cancel()
	end, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	if err := u.close(end); err != nil {
		u.log.Error("not everything was closed", "err", err)
	}
	s, err := u.leave()
	if err != nil {
		return err
	}
	err = s.Exec(program)
	u.log.Error("the new program can't be executed", "err", err)
	return s.Back(err)
}

// leave collects what the next program gets.
func (u upgrades) leave() (*handover.State, error) {
	old, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	u.files = append(u.files, old)
	s := &handover.State{Protocol: handover.Protocol, Attempt: 1, Args: os.Args, From: version.Version, Doors: map[string]handover.Door{}, Locks: map[string]int{}, Old: int(old.Fd())}
	if u.handed != nil {
		s.Attempt = u.handed.Attempt + 1
	}
	for dir, lock := range u.locks {
		s.Locks[dir] = int(lock.File().Fd())
	}
	var all []error
	for _, o := range u.doors {
		if o.kept == nil {
			continue
		}
		l, conns, err := o.kept.Files()
		if err != nil {
			all = append(all, fmt.Errorf("%s: %w", o.key, err))
			continue
		}
		u.files = append(u.files, l)
		left := handover.Door{Listener: int(l.Fd())}
		for _, c := range conns {
			left.Conns = append(left.Conns, int(c.Fd()))
		}
		s.Doors[o.key] = left
	}
	return s, errors.Join(all...)
}

// comeUp bounds how long a program that takes over may need, and gives back
// after a panic. The result is deferred.
func (u upgrades) comeUp() func() {
	if u.handed == nil || u.handed.Failed != "" {
		return func() {}
	}
	u.alarm = time.AfterFunc(comeUpTime, func() {
		err := u.handed.Back(errs.New(errs.Unavailable, "the new program was not ready within %v", comeUpTime))
		u.log.Error("no way back", "err", err)
	})
	return func() {
		if p := recover(); p != nil {
			if u.alarm.Stop() {
				_ = u.handed.Back(errs.New(errs.Unknown, "the new program panicked: %v", p))
			}
			panic(p)
		}
	}
}

// isUp: there is no way back from here.
func (u upgrades) isUp() {
	if u.handed == nil {
		return
	}
	if u.alarm != nil {
		u.alarm.Stop()
	}
	u.handed.Release()
	if u.handed.Failed != "" {
		u.log.Error("the upgrade failed; the program before serves on", "err", u.handed.Failed)
	} else {
		u.log.Info("took over", "from", u.handed.From)
	}
}

// giveBack is what to do about an error before the daemon is up.
func (u upgrades) giveBack(ctx context.Context, err error) error {
	if u.handed == nil {
		return errors.Join(err, u.close(context.WithoutCancel(ctx)))
	}
	u.upgrading = true
	err = errors.Join(err, u.close(context.WithoutCancel(ctx)))
	return u.handed.Back(err)
}
