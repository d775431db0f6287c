package wire

import "encoding/json"

// BuildRequest is the query of POST /build, decoded. Sizes are in bytes.
type BuildRequest struct {
	Tags       []string
	Dockerfile string // inside the context
	Remote     string // where the daemon fetches the context; empty: it is the body
	Target     string
	Platform   string // "os/arch[/variant]"
	Args       map[string]*string
	Labels     map[string]string
	CacheFrom  []string
	ExtraHosts []string // "name:address"
	Network    string

	Quiet, NoCache, Pull, Squash bool
	KeepContainers               bool // rm=0: don't say that they are removed

	Memory, MemorySwap, ShmSize int64
	CPUShares                   int64
	CPUPeriod, CPUQuota         int64 // microseconds
	CPUSetCPUs, CPUSetMems      string
	CgroupParent                string
	Ulimits                     []BuildUlimit
	SecurityOpt                 []string

	// Outputs are what BuildKit is to make instead of an image, with a session.
	Outputs []BuildOutput
	// BuildKit says that the messages are BuildKit's own trace.
	BuildKit bool
	ID       string // what /build/cancel calls it
	Session  string // of the client, for the context and for secrets
	Auth     map[string]RegistryAuth
}

// BuildUlimit is a limit of the processes of a build.
type BuildUlimit struct {
	Name       string
	Soft, Hard int64
}

// BuildOutput is an exporter of BuildKit and its attributes.
type BuildOutput struct {
	Type  string
	Attrs map[string]string
}

// BuildMessage is a line of the answer to POST /build.
type BuildMessage struct {
	ID     string          `json:"id,omitempty"`
	Stream string          `json:"stream,omitempty"`
	Aux    json.RawMessage `json:"aux,omitempty"`
	Error  string          `json:"error,omitempty"`
	Detail *BuildError     `json:"errorDetail,omitempty"`
}

// BuildError is why a build ended; Code is the exit code of a RUN.
type BuildError struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}
