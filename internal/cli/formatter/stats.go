package formatter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"gantry/internal/wire"
)

// Sample is one measurement of a container, in bytes and percent.
type Sample struct {
	Container, Name, ID string
	CPU                 float64 // percent of one CPU: two busy CPUs are 200
	Mem, MemLimit       uint64
	NetRx, NetTx        uint64
	BlockRead, BlockWrt uint64
	PIDs                uint64
	Invalid             bool // nothing measured yet
}

// NewSample reads what the API says of container.
func NewSample(container string, s *wire.Stats) *Sample {
	out := &Sample{Container: container, Name: s.Name, ID: s.ID, CPU: cpuPercent(s), MemLimit: s.MemoryStats.Limit, PIDs: s.PidsStats.Current}
	// Cached file pages can be dropped any time, so they don't count as used: the
	// names are those of cgroup v1 and v2.
	out.Mem = s.MemoryStats.Usage
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := s.MemoryStats.Stats[key]; ok && v < out.Mem {
			out.Mem -= v
			break
		}
	}
	for _, n := range s.Networks {
		out.NetRx += n.RxBytes
		out.NetTx += n.TxBytes
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch strings.ToLower(e.Op) {
		case "read":
			out.BlockRead += e.Value
		case "write":
			out.BlockWrt += e.Value
		}
	}
	return out
}

func cpuPercent(s *wire.Stats) float64 {
	used := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	total := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	cpus := float64(s.CPUStats.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if used <= 0 || total <= 0 {
		return 0
	}
	return used / total * cpus * 100
}

// StatsContext is a row of stats.
type StatsContext struct {
	s     *Sample
	trunc bool
}

// Stats makes rows of list.
func Stats(list []*Sample, o RowOptions) []*StatsContext {
	out := make([]*StatsContext, len(list))
	for i, s := range list {
		out[i] = &StatsContext{s: s, trunc: o.Trunc}
	}
	return out
}

// StatsTable describes stats.
func StatsTable() Table[*StatsContext] {
	return Table[*StatsContext]{
		Columns: []Column[*StatsContext]{
			{"CONTAINER ID", (*StatsContext).ID}, {"NAME", (*StatsContext).Name}, {"CPU %", (*StatsContext).CPUPerc}, {"MEM USAGE / LIMIT", (*StatsContext).MemUsage},
			{"MEM %", (*StatsContext).MemPerc}, {"NET I/O", (*StatsContext).NetIO}, {"BLOCK I/O", (*StatsContext).BlockIO}, {"PIDS", (*StatsContext).PIDs},
		},
		Headers: map[string]string{
			"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %",
			"NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
		},
	}
}

const noValue = "--"

// Container as the user named it.
func (c *StatsContext) Container() string { return c.s.Container }

// Name of the container.
func (c *StatsContext) Name() string {
	if n := strings.TrimPrefix(c.s.Name, "/"); n != "" {
		return n
	}
	return noValue
}

// ID of the container.
func (c *StatsContext) ID() string {
	id := c.s.ID
	if id == "" {
		id = c.s.Container
	}
	if c.trunc {
		return ShortID(id)
	}
	return id
}

func (c *StatsContext) pair(a, b string) string {
	if c.s.Invalid {
		return noValue + " / " + noValue
	}
	return a + " / " + b
}

// CPUPerc is the CPU time used.
func (c *StatsContext) CPUPerc() string {
	if c.s.Invalid {
		return noValue
	}
	return fmt.Sprintf("%.2f%%", c.s.CPU)
}

// MemUsage is the memory used, and what may be.
func (c *StatsContext) MemUsage() string {
	return c.pair(units.BytesSize(float64(c.s.Mem)), units.BytesSize(float64(c.s.MemLimit)))
}

// MemPerc is the part of the memory limit used.
func (c *StatsContext) MemPerc() string {
	if c.s.Invalid {
		return noValue
	}
	if c.s.MemLimit == 0 {
		return "0.00%"
	}
	return fmt.Sprintf("%.2f%%", float64(c.s.Mem)/float64(c.s.MemLimit)*100)
}

// NetIO is what came and went over the network.
func (c *StatsContext) NetIO() string { return c.pair(size3(c.s.NetRx), size3(c.s.NetTx)) }

// BlockIO is what was read from and written to disks.
func (c *StatsContext) BlockIO() string { return c.pair(size3(c.s.BlockRead), size3(c.s.BlockWrt)) }

func size3(n uint64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// PIDs counts processes and threads.
func (c *StatsContext) PIDs() string {
	if c.s.Invalid {
		return noValue
	}
	return strconv.FormatUint(c.s.PIDs, 10)
}
