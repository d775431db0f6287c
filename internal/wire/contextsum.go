package wire

// A session of ours can say by a checksum what a directory holds that a build reads:
// the daemon has it already, mostly, and then not a file of it is told. The methods
// are of gRPC, as the session's others: in go ContextAsk as JSON, out comes the
// checksum, or nothing where there is none; both in a message of bytes as BuildKit
// has it (session/filesync/filesync.proto, BytesMessage).
const (
	// ContextService is the service with both methods.
	ContextService = "gantry.build.v1.Context"
	// ContextSum answers with the checksum of what would be sent now. What is
	// asked for after it is sent as it was then.
	ContextSum = "/" + ContextService + "/Sum"
	// ContextSent answers with the checksum of what was sent last, wholly.
	ContextSent = "/" + ContextService + "/Sent"
)

// ContextAsk is which files of a directory that a session offers are meant.
// Patterns are those of .dockerignore; those of Follow are links too, whose
// targets are meant.
type ContextAsk struct {
	Name    string   `json:"name"`
	Include []string `json:"include,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
	Follow  []string `json:"follow,omitempty"`
}
