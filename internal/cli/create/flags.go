package create

import (
	"net"
	"os"
	"time"

	"github.com/spf13/pflag"

	"gantry/internal/cli/opt"
)

// Flags are the values of the container flags that run and create share.
type Flags struct {
	Image string
	Args  []string

	attach, env, envFile, labels, labelFile    opt.List
	volumes, volumesFrom, tmpfs                opt.List
	publish, expose, dns, dnsSearch, dnsOption opt.List
	extraHosts, links, aliases, linkLocal      opt.List
	capAdd, capDrop, groupAdd, securityOpt     opt.List
	devices, deviceRules, storageOpt, logOpt   opt.List
	annotations, sysctls                       opt.Map
	readBps, writeBps, readIOps, writeIOps     opt.Throttle
	blkioDevices                               opt.Weights
	ulimits                                    opt.Ulimits
	gpus                                       opt.GPUs
	mounts                                     opt.Mounts
	networks                                   opt.Networks
	memory, memoryReservation, shmSize         opt.Bytes
	ioMaxBandwidth, kernelMemory               opt.Bytes
	memorySwap                                 opt.SwapBytes
	cpus                                       opt.CPUs

	hostname, domainname, user, workdir, entrypoint  string
	cgroupParent, cgroupns, cidFile, cpusetCpus      string
	cpusetMems, healthCmd, ipc, isolation, logDriver string
	macAddress, pid, restart, runtime, stopSignal    string
	userns, uts, volumeDriver                        string
	ip, ip6                                          net.IP
	autoRemove, initProcess, stdin, tty, privileged  bool
	noHealthcheck, oomKillDisable, publishAll        bool
	readOnly                                         bool
	healthInterval, healthStartInterval              time.Duration
	healthStartPeriod, healthTimeout                 time.Duration
	healthRetries, oomScoreAdj, stopTimeout          int
	healthHTTP, healthTCP                            string
	after                                            opt.List
	rate                                             opt.Rate
	cpuCount, cpuPercent, cpuPeriod, cpuQuota        int64
	cpuRtPeriod, cpuRtRuntime, cpuShares, pidsLimit  int64
	swappiness                                       int64
	blkioWeight                                      uint16
	ioMaxIOps                                        uint64
}

// Register defines the flags in fs and returns where their values go.
func Register(fs *pflag.FlagSet) *Flags {
	f := &Flags{}
	fs.SetInterspersed(false)
	f.checks()
	f.general(fs)
	f.security(fs)
	f.network(fs)
	f.storage(fs)
	f.health(fs)
	f.resources(fs)
	f.namespaces(fs)
	return f
}

func (f *Flags) checks() {
	f.attach.Check = opt.Attach
	f.env.Check = opt.Env(os.LookupEnv)
	f.labels.Check = opt.Label
	f.dns.Check = opt.IP
	f.dnsSearch.Check = opt.DNSSearch
	f.extraHosts.Check = opt.ExtraHost
	f.links.Check = opt.Link
	f.linkLocal.Check = opt.IP
	f.deviceRules.Check = opt.DeviceRule
	f.sysctls.Check = opt.Sysctl
	f.readBps.Bytes, f.writeBps.Bytes = true, true
}

func (f *Flags) general(fs *pflag.FlagSet) {
	fs.VarP(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	fs.Var(&f.deviceRules, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	fs.Var(&f.devices, "device", "Add a host device to the container")
	fs.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	fs.VarP(&f.env, "env", "e", "Set environment variables")
	fs.Var(&f.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.Var(&f.groupAdd, "group-add", "Add additional groups to join")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.BoolVarP(&f.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.VarP(&f.labels, "label", "l", "Set meta data on a container")
	fs.Var(&f.labelFile, "label-file", "Read in a line delimited file of labels")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.Var(&f.rate, "net-rate", "Bound the traffic of each network (in=10mbit,out=5mbit)")
	fs.Var(&f.after, "after", "Start after another container when the daemon starts it (name[:healthy])")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.Var(&f.sysctls, "sysctl", "Sysctl options")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.Var(&f.ulimits, "ulimit", "Ulimit options")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.BoolVar(&f.autoRemove, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
	fs.Var(&f.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	fs.BoolVar(&f.initProcess, "init", false, "Run an init inside the container that forwards signals and reaps processes")
}

func (f *Flags) security(fs *pflag.FlagSet) {
	fs.Var(&f.capAdd, "cap-add", "Add Linux capabilities")
	fs.Var(&f.capDrop, "cap-drop", "Drop Linux capabilities")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.Var(&f.securityOpt, "security-opt", "Security Options")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use: host, or auto for ids that no other container has")
	fs.StringVar(&f.cgroupns, "cgroupns", "", `Cgroup namespace to use (host|private)
'host':    Run the container in the Docker host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the cgroup namespace as configured by the
           default-cgroupns-mode option on the daemon (default)`)
}

func (f *Flags) network(fs *pflag.FlagSet) {
	fs.Var(&f.extraHosts, "add-host", "Add a custom host-to-IP mapping (host:ip)")
	fs.Var(&f.dns, "dns", "Set custom DNS servers")
	fs.Var(&f.dnsOption, "dns-opt", "Set DNS options")
	_ = fs.MarkHidden("dns-opt")
	fs.Var(&f.dnsOption, "dns-option", "Set DNS options")
	fs.Var(&f.dnsSearch, "dns-search", "Set custom DNS search domains")
	fs.Var(&f.expose, "expose", "Expose a port or a range of ports")
	fs.IPVar(&f.ip, "ip", nil, "IPv4 address (e.g., 172.30.100.104)")
	fs.IPVar(&f.ip6, "ip6", nil, "IPv6 address (e.g., 2001:db8::33)")
	fs.Var(&f.links, "link", "Add link to another container")
	fs.Var(&f.linkLocal, "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	fs.StringVar(&f.macAddress, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.VarP(&f.publish, "publish", "p", "Publish a container's port(s) to the host")
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&f.networks, "net", "Connect a container to a network")
	fs.Var(&f.networks, "network", "Connect a container to a network")
	_ = fs.MarkHidden("net")
	fs.Var(&f.aliases, "net-alias", "Add network-scoped alias for the container")
	fs.Var(&f.aliases, "network-alias", "Add network-scoped alias for the container")
	_ = fs.MarkHidden("net-alias")
}

func (f *Flags) storage(fs *pflag.FlagSet) {
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	fs.Var(&f.logOpt, "log-opt", "Log driver options")
	fs.Var(&f.storageOpt, "storage-opt", "Storage driver options for the container")
	fs.Var(&f.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.Var(&f.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	fs.VarP(&f.volumes, "volume", "v", "Bind mount a volume")
	fs.Var(&f.mounts, "mount", "Attach a filesystem mount to the container")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
}

func (f *Flags) health(fs *pflag.FlagSet) {
	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.StringVar(&f.healthHTTP, "health-http", "", `Address that the daemon asks for health, in the container's network ("http://localhost:8080/ [200-299]")`)
	fs.StringVar(&f.healthTCP, "health-tcp", "", `Address that the daemon connects to for health, in the container's network ("localhost:6379")`)
	fs.DurationVar(&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.BoolVar(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (f *Flags) resources(fs *pflag.FlagSet) {
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&f.blkioDevices, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Int64Var(&f.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&f.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Var(&f.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&f.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&f.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&f.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.Var(&f.ioMaxBandwidth, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	fs.Uint64Var(&f.ioMaxIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit")
	_ = fs.MarkDeprecated("kernel-memory", "and no longer supported by the kernel")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
}

func (f *Flags) namespaces(fs *pflag.FlagSet) {
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
}
