package solve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"strconv"

	"github.com/docker/cli/cli/config/types"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"

	"gantry/internal/cli/buildx/grammar"
	"gantry/internal/cli/conf"
)

// Credentials finds what is known for a registry, as config.json and the
// credential helpers do.
type Credentials interface {
	Credentials(server string) (conf.Auth, error)
}

// session offers the daemon what it may ask for while it builds.
func (b *builder) session() error {
	if b.env.Auth != nil {
		b.so.Session = append(b.so.Session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{AuthConfigProvider: b.auth}))
	}
	var files []secretsprovider.Source
	for _, s := range b.req.Secrets {
		files = append(files, secretsprovider.Source{ID: s.ID, FilePath: s.Path, Env: s.Env})
	}
	store, err := secretsprovider.NewStore(files)
	if err != nil {
		return err
	}
	b.so.Session = append(b.so.Session, secretsprovider.NewSecretProvider(store))
	agents := b.req.SSH
	if len(agents) == 0 && grammar.IsGitSSH(b.req.Context) {
		agents = []grammar.SSH{{ID: "default"}}
	}
	if len(agents) == 0 {
		return nil
	}
	var list []sshprovider.AgentConfig
	for _, a := range agents {
		list = append(list, sshprovider.AgentConfig{ID: a.ID, Paths: a.Paths})
	}
	ssh, err := sshprovider.NewSSHAgentProvider(list)
	if err != nil {
		return err
	}
	b.so.Session = append(b.so.Session, ssh)
	return nil
}

func (b *builder) auth(_ context.Context, host string, _ []string, _ authprovider.ExpireCachedAuthCheck) (types.AuthConfig, error) {
	if host == authprovider.DockerHubRegistryHost {
		host = conf.HubServer
	}
	a, err := b.env.Auth.Credentials(host)
	if err != nil {
		return types.AuthConfig{}, err
	}
	return types.AuthConfig{Username: a.Username, Password: a.Password, ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}, nil
}

// nodeKey tells this machine and user apart from others in the daemon's record
// of what it was sent, without naming them.
func nodeKey() string {
	id, _ := os.ReadFile("/etc/machine-id") // none: the user alone
	sum := sha256.Sum256([]byte(string(id) + strconv.Itoa(os.Getuid())))
	return hex.EncodeToString(sum[:8])
}
