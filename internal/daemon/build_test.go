package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"gantry/internal/config"
)

func TestBuilderConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "daemon.json")
	text := `{"builder": {"gc": {"enabled": true, "policy": [
		{"keepStorage": "1GB", "filter": ["unused-for=2h", "type=source.local"]},
		{"all": true, "maxUsedSpace": "50%", "minFreeSpace": "2GB"}]},
		"entitlements": {"network-host": false, "security-insecure": true}}}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.Load([]string{"--config-file", file})
	if err != nil {
		t.Fatal(err)
	}
	c.Root = t.TempDir()
	got := buildConfig(c, []netip.Addr{netip.MustParseAddr("10.9.9.1")})
	if !slices.Equal(got.Entitlements, []string{"security.insecure"}) || got.HostGateway != "10.9.9.1" || len(got.GC) != 2 {
		t.Fatalf("%+v", got)
	}
	first, second := got.GC[0], got.GC[1]
	if first.Reserved != 1<<30 || first.KeepDuration != 2*time.Hour || !slices.Equal(first.Filter, []string{"type==source.local"}) {
		t.Errorf("%+v", first)
	}
	// What has just been built is never too much.
	if !second.All || second.MinFree != 2<<30 || second.MaxUsed < 1<<20 || second.KeepDuration != freshCache {
		t.Errorf("%+v", second)
	}
	c.Builder = config.Builder{NetworkHost: true}
	if got := buildConfig(c, nil); !slices.Equal(got.Entitlements, []string{"network.host"}) || len(got.GC) != 4 {
		t.Errorf("by default %+v", got)
	}
	c.Builder.NoGC = true
	if got := buildConfig(c, nil); len(got.GC) != 0 {
		t.Errorf("switched off: %+v", got)
	}
	if err := os.WriteFile(file, []byte(`{"builder": {"gc": {"policy": [{"maxUsedSpace": "many"}]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := config.Load([]string{"--config-file", file}); err == nil {
		t.Error("a size that is none was taken")
	}
}
