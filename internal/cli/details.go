package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"gantry/internal/cli/create"
	"gantry/internal/cli/formatter"
	"gantry/internal/cli/opt"
	"gantry/internal/wire"
)

func topCommand(a *App) *cobra.Command {
	cmd := leaf("top CONTAINER [ps OPTIONS]", "Display the running processes of a container", minArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		q := url.Values{}
		if len(args) > 1 {
			q.Set("ps_args", strings.Join(args[1:], " "))
		}
		var res wire.TopResponse
		if err := c.Get(cmd.Context(), containerPath(args[0], "top"), q, &res); err != nil {
			return err
		}
		var b strings.Builder
		for _, row := range append([][]string{res.Titles}, res.Processes...) {
			b.WriteString(strings.Join(row, "\t") + "\n")
		}
		return formatter.Columns{Min: 20, Padding: 3}.Write(a.Out, b.String())
	})
	cmd.Flags().SetInterspersed(false)
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func portCommand(a *App) *cobra.Command {
	cmd := leaf("port CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container", rangeArgs(1, 2), func(cmd *cobra.Command, args []string) error {
		c, err := a.inspectContainer(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		var ports wire.PortMap
		if c.NetworkSettings != nil {
			ports = c.NetworkSettings.Ports
		}
		lines := []string{}
		if len(args) == 2 {
			if lines, err = onePort(ports, args[0], args[1]); err != nil {
				return err
			}
		} else {
			for p, list := range ports {
				for _, b := range list {
					lines = append(lines, fmt.Sprintf("%s -> %s", p, bindingText(b)))
				}
			}
			sortPorts(lines)
		}
		for _, l := range lines {
			fmt.Fprintln(a.Out, l)
		}
		return nil
	})
	cmd.ValidArgsFunction = completeContainers(a)
	cmd.AddCommand(whyCommand(a))
	return cmd
}

func onePort(ports wire.PortMap, name, want string) ([]string, error) {
	num, proto, ok := strings.Cut(want, "/")
	if !ok {
		proto = "tcp"
	}
	if _, err := strconv.ParseUint(num, 10, 16); err != nil {
		return nil, fmt.Errorf("Error: invalid port (%s): %w", num, err.(*strconv.NumError).Err)
	}
	for p, list := range ports {
		if p.String() != num+"/"+proto || len(list) == 0 {
			continue
		}
		var out []string
		for _, b := range list {
			out = append(out, bindingText(b))
		}
		sort.Strings(out)
		return out, nil
	}
	return nil, fmt.Errorf("Error: No public port '%s' published for %s", want, name)
}

func bindingText(b wire.PortBinding) string {
	ip := ""
	if b.HostIP.IsValid() {
		ip = b.HostIP.String()
	}
	if strings.Contains(ip, ":") {
		ip = "[" + ip + "]"
	}
	return ip + ":" + b.HostPort
}

// sortPorts orders "80/tcp -> …" by number, then by text.
func sortPorts(lines []string) {
	num := func(s string) int {
		n, _, _ := strings.Cut(s, "/")
		i, _ := strconv.Atoi(n)
		return i
	}
	sort.Slice(lines, func(i, j int) bool {
		if a, b := num(lines[i]), num(lines[j]); a != b {
			return a < b
		}
		return lines[i] < lines[j]
	})
}

type updateFlags struct {
	memory, reservation, kernelMemory          opt.Bytes
	swap                                       opt.SwapBytes
	cpus                                       opt.CPUs
	blkioWeight                                uint16
	period, quota, rtPeriod, rtRuntime, shares int64
	pids                                       int64
	cpusetCpus, cpusetMems, restart            string

	live liveFlags

	pidsGiven bool // --pids-limit was given, be it as 0
}

func updateCommand(a *App) *cobra.Command {
	var f updateFlags
	cmd := leaf("update [OPTIONS] CONTAINER [CONTAINER...]", "Update configuration of one or more containers", minArgs(1), func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().NFlag() == 0 {
			return errors.New("you must provide one or more flags when using this command")
		}
		f.pidsGiven = cmd.Flags().Changed("pids-limit")
		return updateContainers(cmd.Context(), a, args, &f)
	})
	fs := cmd.Flags()
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, `Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)`)
	fs.Int64Var(&f.period, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.quota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64VarP(&f.shares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit")
	_ = fs.MarkDeprecated("kernel-memory", "and no longer supported by the kernel")
	fs.StringVar(&f.restart, "restart", "", "Restart policy to apply when a container exits")
	fs.Int64Var(&f.pids, "pids-limit", 0, `Tune container pids limit (set -1 for unlimited)`)
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	f.live.add(fs)
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}

func updateContainers(ctx context.Context, a *App, names []string, f *updateFlags) error {
	restart, err := create.ParseRestart(f.restart)
	if err != nil {
		return err
	}
	req := wire.UpdateRequest{UpdateConfig: wire.UpdateConfig{
		Resources: container.Resources{
			BlkioWeight: f.blkioWeight, CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems, CPUShares: f.shares,
			Memory: int64(f.memory), MemoryReservation: int64(f.reservation), MemorySwap: int64(f.swap), CPUPeriod: f.period, CPUQuota: f.quota,
			CPURealtimePeriod: f.rtPeriod, CPURealtimeRuntime: f.rtRuntime, NanoCPUs: int64(f.cpus),
		},
		RestartPolicy: restart,
	}}
	if req.Gantry, err = f.live.extra(); err != nil {
		return err
	}
	if f.pidsGiven {
		req.PidsLimit = &f.pids
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	var warnings []string
	err = a.each(names, func(n string) error {
		var res wire.UpdateResponse
		err := c.Post(ctx, containerPath(n, "update"), nil, req, &res)
		warnings = append(warnings, res.Warnings...)
		return err
	})
	for _, w := range warnings {
		fmt.Fprintln(a.Err, w)
	}
	return err
}

func diffCommand(a *App) *cobra.Command {
	var format string
	cmd := leaf("diff CONTAINER", "Inspect changes to files or directories on a container's filesystem", exactArgs(1), func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var changes []struct {
			Path string
			Kind uint8
		}
		if err := c.Get(cmd.Context(), containerPath(args[0], "changes"), nil, &changes); err != nil {
			return err
		}
		var rows []*formatter.DiffContext
		for _, ch := range changes {
			rows = append(rows, formatter.NewDiff(ch.Kind, ch.Path))
		}
		if format == "" {
			format = "{{.Type}} {{.Path}}"
		}
		return formatter.DiffTable().Render(a.Out, format, rows)
	})
	cmd.ValidArgsFunction = completeContainers(a)
	return cmd
}
