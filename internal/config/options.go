package config

import "net/netip"

// A Status says what becomes of a setting.
type Status uint8

// The three answers to a setting.
const (
	Works   Status = iota
	Warned         // accepted, has no effect, said so
	Refused        // a daemon that was told so must not start
)

// An Option is one setting.
type Option struct {
	Flag   string // without dashes; empty if there is none
	Short  string // one letter
	Key    string // of daemon.json; empty if there is none
	Usage  string
	Status Status
	Reason string // why it is not Works
	field
}

// Options returns every setting of dockerd, and our own, in the order of
// --help.
func Options() []Option {
	return append(append(append(append(daemonOptions(), containerOptions()...), networkOptions()...), imageOptions()...), otherOptions()...)
}

func daemonOptions() []Option {
	return []Option{
		{Flag: "host", Short: "H", Key: "hosts", Usage: "Daemon socket to listen on: unix://path, tcp://address, fd://; may be repeated", field: list(func(c *Config) *[]string { return &c.Hosts })},
		{Flag: "group", Short: "G", Key: "group", Usage: "Group of the unix socket", field: text(func(c *Config) *string { return &c.Group })},
		{Flag: "config-file", Usage: "Daemon configuration file", field: text(func(c *Config) *string { return &c.File })},
		{Flag: "data-root", Key: "data-root", Usage: "Directory of images, containers and volumes", field: text(func(c *Config) *string { return &c.Root })},
		{Flag: "disk-budget", Key: "disk-budget", Usage: "Space for images, build cache and logs together: SIZE or N% of the file system, optionally ,low=SIZE|N%", field: text(func(c *Config) *string { return &c.DiskBudget })},
		{Flag: "exec-root", Key: "exec-root", Usage: "Directory of sockets and namespaces", field: text(func(c *Config) *string { return &c.Run })},
		{Flag: "instance", Key: "instance", Usage: "Name that tells this daemon from others on the host (default: from its directories)", field: text(func(c *Config) *string { return &c.Instance })},
		{Flag: "pidfile", Short: "p", Key: "pidfile", Usage: "Path to use for the daemon's PID file", field: text(func(c *Config) *string { return &c.PidFile })},
		{Flag: "debug", Short: "D", Key: "debug", Usage: "Enable debug mode", field: toggle(func(c *Config) *bool { return &c.Debug })},
		{Flag: "log-level", Short: "l", Key: "log-level", Usage: "Level of the daemon's messages (debug|info|warn|error|fatal)", field: text(func(c *Config) *string { return &c.LogLevel })},
		{Flag: "log-format", Key: "log-format", Usage: "Format of the daemon's messages (text|json)", field: text(func(c *Config) *string { return &c.LogFormat })},
		{Flag: "label", Key: "labels", Usage: "Label of the daemon, key=value", field: list(func(c *Config) *[]string { return &c.Labels })},
		{Flag: "shutdown-timeout", Key: "shutdown-timeout", Usage: "Seconds that requests, and containers if live-restore is off, have to end at shutdown", field: number(func(c *Config) *int { return &c.ShutdownTimeout })},
		{Flag: "live-restore", Key: "live-restore", Usage: "Containers go on without the daemon; false: they are stopped when it is told to end", field: toggle(func(c *Config) *bool { return &c.LiveRestore })},
		{Flag: "tls", Key: "tls", Usage: "Use TLS; implied by --tlsverify", field: triState(func(c *Config) **bool { return &c.TLS })},
		{Flag: "tlsverify", Key: "tlsverify", Usage: "Use TLS and verify the client", field: toggle(func(c *Config) *bool { return &c.TLSVerify })},
		{Flag: "tlscacert", Key: "tlscacert", Usage: "Trust clients whose certificate is signed by this CA", field: text(func(c *Config) *string { return &c.TLSCA })},
		{Flag: "tlscert", Key: "tlscert", Usage: "Path to the TLS certificate", field: text(func(c *Config) *string { return &c.TLSCert })},
		{Flag: "tlskey", Key: "tlskey", Usage: "Path to the TLS key", field: text(func(c *Config) *string { return &c.TLSKey })},
		{Flag: "api-socket", Key: "api-sockets", Usage: "Further socket whose requests a policy bounds: path=…,policy=file|name[,mode=0660][,group=name]; may be repeated", field: apiSockets()},
		{Flag: "debug-socket", Key: "debug-socket", Usage: "Unix socket, for root alone, of the profiler and the metrics", field: text(func(c *Config) *string { return &c.DebugSocket })},
		{Flag: "metrics-addr", Key: "metrics-addr", Usage: "Address and port of the metrics endpoint", field: text(func(c *Config) *string { return &c.MetricsAddr })},
		{Flag: "experimental", Key: "experimental", Usage: "Say that experimental features are on", field: toggle(func(c *Config) *bool { return &c.Experimental })},
	}
}

func containerOptions() []Option {
	return []Option{
		{Flag: "add-runtime", Key: "runtimes", Usage: "Register another OCI runtime, name=path", field: runtimes()},
		{Flag: "default-runtime", Key: "default-runtime", Usage: "OCI runtime of containers that name none", field: text(func(c *Config) *string { return &c.DefaultRuntime })},
		{Flag: "exec-opt", Key: "exec-opts", Usage: "native.cgroupdriver=cgroupfs|systemd", field: execOpts()},
		{Flag: "cgroup-parent", Key: "cgroup-parent", Usage: "Control group above those of the containers", field: text(func(c *Config) *string { return &c.CgroupParent })},
		{Flag: "default-cgroupns-mode", Key: "default-cgroupns-mode", Usage: "Control group namespace of containers (host|private)", field: text(func(c *Config) *string { return &c.CgroupnsMode })},
		{Flag: "default-ipc-mode", Key: "default-ipc-mode", Usage: "IPC namespace of containers (shareable|private)", field: text(func(c *Config) *string { return &c.IPCMode })},
		{Flag: "default-shm-size", Key: "default-shm-size", Usage: "Size of /dev/shm", field: bytesOf(func(c *Config) *int64 { return &c.ShmSize })},
		{Flag: "default-ulimit", Key: "default-ulimits", Usage: "Default ulimits of containers, name=soft[:hard]", field: ulimits()},
		{Flag: "default-stop-timeout", Key: "default-stop-timeout", Usage: "Seconds a container has to stop", field: number(func(c *Config) *int { return &c.StopTimeout })},
		{Flag: "init", Key: "init", Usage: "Run an init in containers to forward signals and reap processes", field: toggle(func(c *Config) *bool { return &c.Init })},
		{Flag: "init-path", Key: "init-path", Usage: "Path to another init program", Status: Warned, Reason: "the init is built in", field: text(func(c *Config) *string { return &c.InitPath })},
		{Flag: "no-new-privileges", Key: "no-new-privileges", Usage: "Set no-new-privileges for new containers", field: toggle(func(c *Config) *bool { return &c.NoNewPrivs })},
		{Flag: "seccomp-profile", Key: "seccomp-profile", Usage: "Path to a seccomp profile, or unconfined", field: text(func(c *Config) *string { return &c.SeccompProfile })},
		{Flag: "log-driver", Key: "log-driver", Usage: "Log driver of containers", field: text(func(c *Config) *string { return &c.LogDriver })},
		{Flag: "log-opt", Key: "log-opts", Usage: "Log driver options of containers", field: pairs(func(c *Config) map[string]string { return c.LogOpts })},
		{Flag: "userns-remap", Key: "userns-remap", Usage: "Run containers in user namespaces: default, user[:group] or uid[:gid] whose subordinate ids they get", field: text(func(c *Config) *string { return &c.UsernsRemap })},
		{Flag: "selinux-enabled", Key: "selinux-enabled", Usage: "Enable SELinux labels", Status: Refused, Reason: "SELinux labels are not built yet", field: ignored("")},
		{Flag: "cpu-rt-period", Key: "cpu-rt-period", Usage: "Real-time period of the parent control group", Status: Warned, Reason: "real-time groups are given per container only", field: ignored("int")},
		{Flag: "cpu-rt-runtime", Key: "cpu-rt-runtime", Usage: "Real-time runtime of the parent control group", Status: Warned, Reason: "real-time groups are given per container only", field: ignored("int")},
	}
}

func networkOptions() []Option {
	return []Option{
		{Flag: "bridge", Short: "b", Key: "bridge", Usage: "Bridge of the default network", field: text(func(c *Config) *string { return &c.Bridge })},
		{Flag: "bip", Key: "bip", Usage: "IPv4 address and subnet of the default bridge", field: parsed("cidr", func(c *Config, s string) (err error) { c.BIP, err = netip.ParsePrefix(s); return err })},
		{Flag: "fixed-cidr", Key: "fixed-cidr", Usage: "IPv4 range for containers of the default bridge", field: parsed("cidr", func(c *Config, s string) (err error) { c.FixedCIDR, err = netip.ParsePrefix(s); return err })},
		{Flag: "default-gateway", Key: "default-gateway", Usage: "Default gateway of the default bridge", field: address(func(c *Config) *netip.Addr { return &c.DefaultGateway })},
		{Flag: "mtu", Key: "mtu", Usage: "MTU of the default bridge", field: number(func(c *Config) *int { return &c.MTU })},
		{Flag: "icc", Key: "icc", Usage: "Containers of the default bridge may reach each other", field: toggle(func(c *Config) *bool { return &c.ICC })},
		{Flag: "ip", Key: "ip", Usage: "Host address on which ports are published", field: address(func(c *Config) *netip.Addr { return &c.HostIP })},
		{Flag: "ip-forward", Key: "ip-forward", Usage: "Enable forwarding in the kernel", field: toggle(func(c *Config) *bool { return &c.IPForward })},
		{Flag: "ip-masq", Key: "ip-masq", Usage: "Masquerade the default bridge", field: toggle(func(c *Config) *bool { return &c.IPMasq })},
		{Flag: "default-address-pool", Key: "default-address-pools", Usage: "Ranges that networks take their subnets from", field: pools()},
		{Flag: "dns", Key: "dns", Usage: "DNS servers of containers", field: addresses(func(c *Config) *[]netip.Addr { return &c.DNS })},
		{Flag: "dns-opt", Key: "dns-opts", Usage: "DNS options of containers", field: list(func(c *Config) *[]string { return &c.DNSOptions })},
		{Flag: "dns-search", Key: "dns-search", Usage: "DNS search domains of containers", field: list(func(c *Config) *[]string { return &c.DNSSearch })},
		{Flag: "host-gateway-ip", Key: "host-gateway-ips", Usage: "Addresses that host-gateway stands for", field: addresses(func(c *Config) *[]netip.Addr { return &c.HostGatewayIPs })},
		{Key: "host-gateway-ip", field: address1(func(c *Config) *[]netip.Addr { return &c.HostGatewayIPs })},
		{Flag: "ipv6", Key: "ipv6", Usage: "IPv6 on the default bridge", field: toggle(func(c *Config) *bool { return &c.IPv6 })},
		{Flag: "bip6", Key: "bip6", Usage: "IPv6 address of the default bridge", field: parsed("cidr", func(c *Config, s string) (err error) { c.BIP6, err = netip.ParsePrefix(s); return err })},
		{Flag: "fixed-cidr-v6", Key: "fixed-cidr-v6", Usage: "IPv6 range of the default bridge", field: parsed("cidr", func(c *Config, s string) (err error) { c.FixedCIDR6, err = netip.ParsePrefix(s); return err })},
		{Flag: "default-gateway-v6", Key: "default-gateway-v6", Usage: "IPv6 gateway of the default bridge", field: address(func(c *Config) *netip.Addr { return &c.DefaultGateway6 })},
		{Flag: "default-network-opt", Key: "default-network-opts", Usage: "Options of new networks", field: networkOpts()},
		{Flag: "iptables", Key: "iptables", Usage: "Add iptables rules", Status: Warned, Reason: "rules are one nftables table; iptables is not used", field: ignored("")},
		{Flag: "ip6tables", Key: "ip6tables", Usage: "Add ip6tables rules", Status: Warned, Reason: "rules are one nftables table; iptables is not used", field: ignored("")},
		{Flag: "firewall-backend", Key: "firewall-backend", Usage: "Firewall backend", Status: Warned, Reason: "the backend is nftables", field: ignored("string")},
		{Flag: "ip-forward-no-drop", Key: "ip-forward-no-drop", Usage: "Leave the forward policy alone", Status: Warned, Reason: "the policy of the host's forward chain is never changed", field: ignored("")},
		{Flag: "published-ports", Key: "published-ports", Usage: `How published ports pass the host's filters ("open", "filtered": as the host's own ports)`, field: parsed("string", publishing)},
		{Flag: "userland-proxy", Key: "userland-proxy", Usage: "Relay what packet rules can't translate: ::1, and IPv6 to containers without it", field: toggle(func(c *Config) *bool { return &c.Relay })},
		{Flag: "userland-proxy-path", Key: "userland-proxy-path", Usage: "Path to the proxy", Status: Warned, Reason: "the daemon relays without a proxy process", field: ignored("string")},
		{Flag: "allow-direct-routing", Key: "allow-direct-routing", Usage: "Published ports are reached at the containers' own addresses, too", field: toggle(func(c *Config) *bool { return &c.DirectRouting })},
		{Flag: "bridge-accept-fwmark", Key: "bridge-accept-fwmark", Usage: "Firewall mark, or mark/mask, of packets that containers take at every port", field: parsed("string", acceptMark)},
		{Flag: "network-control-plane-mtu", Key: "network-control-plane-mtu", Usage: "MTU of the network control plane", Status: Warned, Reason: "there is no cluster", field: ignored("int")},
		{Flag: "network-diagnostic-port", Key: "network-diagnostic-port", Usage: "Port of the network diagnostic server", Status: Warned, Reason: "there is no cluster", field: ignored("int")},
		{Key: "resolv-conf", Status: Warned, Reason: "the host's resolver is used", field: ignored("string")},
	}
}

func imageOptions() []Option {
	return []Option{
		{Flag: "registry-mirror", Key: "registry-mirrors", Usage: "Preferred registry mirror", field: list(func(c *Config) *[]string { return &c.RegistryMirrors })},
		{Flag: "insecure-registry", Key: "insecure-registries", Usage: "Registry without TLS", field: list(func(c *Config) *[]string { return &c.InsecureRegistries })},
		{Flag: "http-proxy", Key: "http-proxy", Usage: "Proxy for outgoing HTTP", field: text(func(c *Config) *string { return &c.HTTPProxy })},
		{Flag: "https-proxy", Key: "https-proxy", Usage: "Proxy for outgoing HTTPS", field: text(func(c *Config) *string { return &c.HTTPSProxy })},
		{Flag: "no-proxy", Key: "no-proxy", Usage: "Hosts that are reached without a proxy", field: text(func(c *Config) *string { return &c.NoProxy })},
		{Key: "proxies", field: proxies()},
		{Flag: "max-concurrent-downloads", Key: "max-concurrent-downloads", Usage: "Downloads at once", field: number(func(c *Config) *int { return &c.MaxDownloads })},
		{Flag: "max-concurrent-uploads", Key: "max-concurrent-uploads", Usage: "Uploads at once", field: number(func(c *Config) *int { return &c.MaxUploads })},
		{Flag: "max-download-attempts", Key: "max-download-attempts", Usage: "Attempts of each download", field: number(func(c *Config) *int { return &c.DownloadAttempts })},
		{Flag: "lazy-pull", Key: "lazy-pull", Usage: "Containers of images in eStargz form start before all of the image is here", field: toggle(func(c *Config) *bool { return &c.LazyPull })},
		{Key: "registries", field: registries()},
		{Flag: "storage-driver", Short: "s", Key: "storage-driver", Usage: "Storage driver (overlayfs|vfs|btrfs|erofs)", field: parsed("string", storageDriver)},
		{Flag: "storage-opt", Key: "storage-opts", Usage: "Storage driver options", Status: Refused, Reason: "the storage driver has no options", field: ignored("list")},
		{Flag: "containerd", Key: "containerd", Usage: "Address of containerd", Status: Warned, Reason: "there is no separate containerd", field: ignored("string")},
		{Flag: "cri-containerd", Key: "cri-containerd", Usage: "Start containerd with CRI", Status: Refused, Reason: "there is no separate containerd", field: ignored("")},
		{Flag: "containerd-namespace", Key: "containerd-namespace", Usage: "Namespace in containerd", Status: Warned, Reason: "there is no separate containerd", field: ignored("string")},
		{Flag: "containerd-plugins-namespace", Key: "containerd-plugin-namespace", Usage: "Namespace of plugins in containerd", Status: Warned, Reason: "there is no separate containerd", field: ignored("string")},
	}
}

func otherOptions() []Option {
	return []Option{
		{Flag: "feature", Key: "features", Usage: "Switch a feature", Status: Warned, Reason: "there are no optional features", field: features()},
		{Flag: "authorization-plugin", Key: "authorization-plugins", Usage: "Authorization plugin that is asked about every request; may be repeated", field: list(func(c *Config) *[]string { return &c.AuthorizationPlugins })},
		{Flag: "raw-logs", Key: "raw-logs", Usage: "Full timestamps without colours", Status: Warned, Reason: "messages never have colours", field: ignored("")},
		{Flag: "restart", Short: "r", Usage: "Restart containers (obsolete)", Status: Warned, Reason: "restart policies of containers say so", field: ignored("")},
		{Flag: "rootless", Key: "rootless", Usage: "Run without root", Status: Refused, Reason: "rootless mode is not built yet", field: ignored("")},
		{Flag: "cdi-spec-dir", Key: "cdi-spec-dirs", Usage: "Directory of CDI specifications; may be repeated (default: /etc/cdi and /var/run/cdi)", field: list(func(c *Config) *[]string { return &c.CDISpecDirs })},
		{Flag: "nri-opts", Key: "nri-opts", Usage: "Node Resource Interface", Status: Refused, Reason: "NRI is not built yet", field: ignored("map")},
		{Flag: "node-generic-resource", Key: "node-generic-resources", Usage: "Advertise a resource", Status: Warned, Reason: "there is no cluster", field: ignored("list")},
		{Flag: "swarm-default-advertise-addr", Key: "swarm-default-advertise-addr", Usage: "Address of this node", Status: Warned, Reason: "there is no cluster", field: ignored("string")},
		{Key: "swarm-raft-election-tick", Status: Warned, Reason: "there is no cluster", field: ignored("int")},
		{Key: "swarm-raft-heartbeat-tick", Status: Warned, Reason: "there is no cluster", field: ignored("int")},
		{Key: "builder", field: builder()},
		{Key: "default-init", Status: Warned, Reason: "the init is built in", field: ignored("string")},
		{Key: "min-api-version", Status: Warned, Reason: "versions from 1.24 are served", field: ignored("string")},
	}
}
