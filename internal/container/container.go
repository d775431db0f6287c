// Package container owns the containers of this daemon: their records, their
// names and the goroutine that is each one's only writer. It decides with pure
// functions (plan, next) and acts through package launch and the shim.
//
// The API calls it; it calls image, network, volume and launch, and publishes
// events. It must not know HTTP.
//
// # What the Engine can do
//
// ref is a full ID, a name with or without its slash, or a unique prefix of an
// ID. Errors have the kind that the API's status follows from.
//
//	// Control: what changes a container
//	Create(ctx, CreateOptions) (wire.CreateResponse, error)
//	Start(ctx, ref string) error                        // errs.NoChange: runs already
//	Stop(ctx, ref string, StopOptions) error            // errs.NoChange: does not run
//	Restart(ctx, ref string, StopOptions) error
//	Kill(ctx, ref, signal string) error
//	Pause(ctx, ref string) error
//	Unpause(ctx, ref string) error
//	Rename(ctx, ref, name string) error
//	Remove(ctx, ref string, RemoveOptions) error
//	Update(ctx, ref string, wire.UpdateConfig) (wire.UpdateResponse, error)
//	Prune(ctx, filters filter.Args) (wire.ContainersPruned, error)
//
//	// Query: what observes containers; never waits for one, but Wait
//	Inspect(ctx, ref string, InspectOptions) (wire.ContainerJSON, error)
//	List(ctx, ListOptions) ([]wire.ContainerSummary, error)
//	Wait(ctx, ref, condition string) (<-chan wire.WaitResponse, error)
//	Top(ctx, ref, psArgs string) (wire.TopResponse, error)
//	Stats(ctx, ref string, StatsOptions) (iter.Seq2[*wire.Stats, error], error)
//	Counts() Counts
//	Uses(imageID string) []Use
//
//	// Streams
//	Attach(ctx, ref string, AttachOptions) (*Attached, error)
//	Logs(ctx, ref string, LogOptions) (*LogStream, error)  // .TTY; .Entries(ctx) iter.Seq2[logs.Entry, error]
//	Resize(ctx, ref string, height, width uint16) error
//
//	// Execs
//	ExecCreate(ctx, ref string, wire.ExecCreate) (id string, error)
//	ExecStart(ctx, id string, ExecStartOptions) (*Attached, error) // nil if detached; *StreamError
//	ExecInspect(ctx, id string) (wire.ExecInspect, error)
//	ExecResize(ctx, id string, height, width uint16) error
package container
