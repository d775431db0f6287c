package registry_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gantry/internal/registry/auth"
)

// A start removes uploads that nobody can go on with and old ones, and no other.
func TestRecoverUploads(t *testing.T) {
	dir := t.TempDir()
	s := start(t, local(t, dir), dir, nil)
	begin := func(age time.Duration) (at, spool string) {
		r := s.want(202, "", "POST", "/v2/x/blobs/uploads/", "")
		at = r.Get("Location")
		s.want(202, "", "PATCH", at, "half")
		spool = filepath.Join(dir, "spool", "u-"+r.Get("Docker-Upload-UUID"))
		then := time.Now().Add(-age)
		if err := os.Chtimes(filepath.Join(spool, "data"), then, then); err != nil {
			t.Fatal(err)
		}
		return at, spool
	}
	young, _ := begin(time.Hour)
	old, oldDir := begin(48 * time.Hour)
	noRecord, recordDir := begin(0)
	noData, dataDir := begin(0)
	for _, f := range []string{filepath.Join(recordDir, "upload.json"), filepath.Join(dataDir, "data")} {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.store.Recover(t.Context(), 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{old, noRecord, noData} {
		s.want(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, "")
	}
	for _, d := range []string{oldDir, recordDir, dataDir} {
		if _, err := os.Stat(d); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", d, err)
		}
	}
	if r := s.want(204, "", "GET", young, ""); r.Get("Range") != "0-3" {
		t.Errorf("%v", r.Header)
	}
}

// A token service may change its keys while the registry runs.
func TestKeysAreReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys.pem")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := auth.OpenKeys(""); err == nil {
		t.Error("no file is taken")
	}
	write("nothing")
	if _, err := auth.OpenKeys(file); err == nil {
		t.Error("a file without keys is taken")
	}
	now := time.Now()
	signer := func(name string) (*auth.Signer, string) {
		s, err := auth.OpenSigner(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(s.Public())
		if err != nil {
			t.Fatal(err)
		}
		return s, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	}
	token := func(s *auth.Signer) string {
		text, err := (&auth.Service{Signer: s, Issuer: "them", Name: "reg", Life: time.Minute}).Token("ann", nil, now)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	one, pem1 := signer("one")
	two, pem2 := signer("two")
	write(pem1)
	keys, err := auth.OpenKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	static, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	v := &auth.Verifier{Source: keys, Issuer: "them", Service: "reg"}
	v.Keys = append(v.Keys, static)
	check := func(what string, s *auth.Signer, good bool) {
		t.Helper()
		if c, err := v.Verify(token(s), now); (err == nil) != good || good && c.Subject != "ann" {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("the first key", one, true)
	check("a key that is not there", two, false)
	write(pem1 + pem2)
	check("both", one, true)
	check("both", two, true)
	write(pem2)
	check("a key that has gone", one, false)
	check("the second key", two, true)
	write("half")
	check("a file that is wrong", two, false)
}
