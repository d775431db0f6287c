package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"slices"
	"strings"
	"time"

	"gantry/internal/durable"
	"gantry/internal/errs"
)

// Access is a right that a token gives.
// Format: Docker's token authentication, "access" of the JSON web token.
type Access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Claims are what a token says.
type Claims struct {
	Issuer   string   `json:"iss,omitempty"`
	Subject  string   `json:"sub,omitempty"`
	Audience audience `json:"aud,omitempty"`
	Expires  int64    `json:"exp"`
	Before   int64    `json:"nbf,omitempty"`
	Issued   int64    `json:"iat,omitempty"`
	ID       string   `json:"jti,omitempty"`
	Access   []Access `json:"access"`
	// Refresh marks a token that is only good for asking for others.
	Refresh bool `json:"gantry_refresh,omitempty"`
	// Password is a digest of what the user's password was kept as when a
	// refresh token was made: a new password ends it.
	Password string `json:"gantry_password,omitempty"`
}

// audience is one name or a list of them (RFC 7519, 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

// Allows reports whether a token gives a right.
func (c *Claims) Allows(repository string, a Action) bool {
	typ, name := "repository", repository
	if repository == "" {
		typ, name = "registry", "catalog"
	}
	return slices.ContainsFunc(c.Access, func(x Access) bool {
		return x.Type == typ && x.Name == name && (slices.Contains(x.Actions, string(a)) || slices.Contains(x.Actions, "*"))
	})
}

// A Signer makes tokens.
type Signer struct {
	key *ecdsa.PrivateKey
	id  string
}

// OpenSigner reads a private key (PEM, P-256) from a file, or makes both.
func OpenSigner(path string) (*Signer, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		data = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		if err := durable.WriteFile(path, data, 0o600); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errs.New(errs.Invalid, "%s: no PEM block", path)
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		any, err = x509.ParseECPrivateKey(block.Bytes)
	}
	key, ok := any.(*ecdsa.PrivateKey)
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return nil, errs.New(errs.Invalid, "%s: not a private key on curve P-256", path)
	}
	return &Signer{key, KeyID(&key.PublicKey)}, nil
}

// Public returns the key that checks the signer's tokens.
func (s *Signer) Public() crypto.PublicKey { return &s.key.PublicKey }

// Sign makes a token of claims.
func (s *Signer) Sign(c Claims) (string, error) {
	head, err := json.Marshal(map[string]string{"typ": "JWT", "alg": "ES256", "kid": s.id})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString(head) + "." + enc.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return "", err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	v.FillBytes(sig[32:])
	return text + "." + enc.EncodeToString(sig), nil
}

// KeyID returns the name of a public key: the start of the digest of its DER.
func KeyID(k crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:16])
}

// ReadKeys reads public keys and certificates from PEM.
func ReadKeys(data []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			keys = append(keys, c.PublicKey)
		case "PUBLIC KEY":
			k, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errs.New(errs.Invalid, "no public key or certificate (PEM)")
	}
	return keys, nil
}

// KeyFile is a file of public keys that is read again when it changes.
type KeyFile struct{ f file[[]crypto.PublicKey] }

// OpenKeys reads public keys and certificates (PEM) of a file.
func OpenKeys(path string) (*KeyFile, error) {
	if path == "" {
		return nil, errs.New(errs.Invalid, "no file of keys")
	}
	k := &KeyFile{file[[]crypto.PublicKey]{path: path, parse: ReadKeys}}
	_, err := k.f.get()
	return k, err
}

// A Verifier checks tokens.
type Verifier struct {
	Keys    []crypto.PublicKey
	Source  *KeyFile // of more keys; nil: none
	Issuer  string   // that tokens must name; empty: any
	Service string   // that tokens must be for
}

// maxToken bounds a token, in bytes, and leeway how far clocks may differ.
const (
	maxToken = 64 << 10
	leeway   = 60 * time.Second
)

// Verify reads a token: errs.Unauthenticated if it is not good now. The
// algorithm is that of the key, whatever the token says; RSA, ECDSA and Ed25519.
// Format: RFC 7519, RFC 7515.
func (v *Verifier) Verify(token string, now time.Time) (*Claims, error) {
	c, err := v.verify(token, now)
	if err != nil {
		return nil, errs.New(errs.Unauthenticated, "invalid token: %w", err)
	}
	return c, nil
}

func (v *Verifier) verify(token string, now time.Time) (*Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return nil, errors.New("not a JSON web token")
	}
	var raw [3][]byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil {
			return nil, err
		}
		raw[i] = b
	}
	var head struct {
		Alg  string
		Crit json.RawMessage
	}
	if err := json.Unmarshal(raw[0], &head); err != nil {
		return nil, err
	}
	if head.Crit != nil {
		return nil, errors.New("critical header")
	}
	text := []byte(parts[0] + "." + parts[1])
	keys := v.Keys
	if v.Source != nil {
		more, err := v.Source.f.get()
		if err != nil {
			return nil, err
		}
		keys = append(slices.Clone(keys), more...)
	}
	if !slices.ContainsFunc(keys, func(k crypto.PublicKey) bool { return signed(k, head.Alg, text, raw[2]) }) {
		return nil, errors.New("no known key has signed it")
	}
	var c Claims
	if err := json.NewDecoder(bytes.NewReader(raw[1])).Decode(&c); err != nil {
		return nil, err
	}
	at := func(n int64) time.Time { return time.Unix(n, 0) }
	switch {
	case c.Expires == 0 || now.After(at(c.Expires).Add(leeway)):
		return nil, errors.New("expired")
	case c.Before != 0 && now.Add(leeway).Before(at(c.Before)):
		return nil, errors.New("not valid yet")
	case v.Issuer != "" && c.Issuer != v.Issuer:
		return nil, fmt.Errorf("issuer %q", c.Issuer)
	case !slices.Contains(c.Audience, v.Service):
		return nil, errors.New("for another service")
	}
	return &c, nil
}

// signed checks a signature by a key's own algorithm.
func signed(k crypto.PublicKey, alg string, text, sig []byte) bool {
	switch k := k.(type) {
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(k, text, sig)
	case *rsa.PublicKey:
		h, sum := digestFor(alg, "RS", text)
		if sum != nil {
			return k.N.BitLen() >= 2048 && rsa.VerifyPKCS1v15(k, h, sum, sig) == nil
		}
		h, sum = digestFor(alg, "PS", text)
		return sum != nil && k.N.BitLen() >= 2048 && rsa.VerifyPSS(k, h, sum, sig, nil) == nil
	case *ecdsa.PublicKey:
		_, sum := digestFor(alg, "ES", text)
		n := (k.Curve.Params().BitSize + 7) / 8
		want := map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
		if sum == nil || alg != want || len(sig) != 2*n {
			return false
		}
		return ecdsa.Verify(k, sum, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
	}
	return false
}

// digestFor returns the digest of text that an algorithm of a family signs.
func digestFor(alg, family string, text []byte) (crypto.Hash, []byte) {
	switch alg {
	case family + "256":
		s := sha256.Sum256(text)
		return crypto.SHA256, s[:]
	case family + "384":
		s := sha512.Sum384(text)
		return crypto.SHA384, s[:]
	case family + "512":
		s := sha512.Sum512(text)
		return crypto.SHA512, s[:]
	}
	return 0, nil
}
