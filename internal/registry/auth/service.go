package auth

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"gantry/internal/errs"
)

// A Service gives tokens to those who have passwords.
type Service struct {
	Policy *Policy
	Signer *Signer
	Issuer string
	Name   string        // of the registry that the tokens are for
	Life   time.Duration // of a token
}

// RefreshLife is how long a refresh token is good.
const RefreshLife = 30 * 24 * time.Hour

// ParseScope reads scopes as clients ask for them:
// "repository:name:pull,push registry:catalog:*". What it can't read is left out.
func ParseScope(texts []string) []Access {
	var list []Access
	for _, one := range strings.Fields(strings.Join(texts, " ")) {
		typ, rest, ok := strings.Cut(one, ":")
		i := strings.LastIndexByte(rest, ':')
		if !ok || i < 0 || len(list) == 100 {
			continue
		}
		if j := strings.IndexByte(typ, '('); j >= 0 {
			typ = typ[:j]
		}
		list = append(list, Access{Type: typ, Name: rest[:i], Actions: strings.Split(rest[i+1:], ",")})
	}
	return list
}

// Grant returns what of the access that a user asks for he may have.
func (s *Service) Grant(user string, asked []Access) ([]Access, error) {
	given := []Access{}
	for _, a := range asked {
		repository := a.Name
		if a.Type == "registry" && a.Name == "catalog" {
			repository = ""
		} else if a.Type != "repository" || a.Name == "" {
			continue
		}
		actions := []string{}
		for _, want := range a.Actions {
			list := []Action{Action(want)}
			if want == "*" && repository != "" {
				list = []Action{Pull, Push, Delete}
			}
			for _, x := range list {
				ok, err := s.Policy.Allows(user, repository, x)
				if err != nil {
					return nil, err
				}
				if ok {
					actions = append(actions, string(x))
				}
			}
		}
		if repository == "" {
			// Who may administer the registry may say so by the catalog's token.
			if ok, err := s.Policy.Allows(user, "", Admin); err != nil {
				return nil, err
			} else if ok {
				actions = append(actions, string(Admin))
			}
		}
		given = append(given, Access{a.Type, a.Name, actions})
	}
	return given, nil
}

// Token makes a token for a user, "" for nobody.
func (s *Service) Token(user string, access []Access, now time.Time) (string, error) {
	c := s.claims(user, now, s.Life)
	c.Access = access
	return s.Signer.Sign(c)
}

// Refresh makes a token that RefreshUser takes instead of a password.
func (s *Service) Refresh(user string, now time.Time) (string, error) {
	mark, err := s.Policy.mark(user)
	if err != nil {
		return "", err
	}
	c := s.claims(user, now, RefreshLife)
	c.Refresh, c.Password = true, mark
	return s.Signer.Sign(c)
}

// RefreshUser returns whose a refresh token is, if it is good and the user's
// password still the same: errs.Unauthenticated otherwise.
func (s *Service) RefreshUser(token string, now time.Time) (string, error) {
	c, err := s.Verifier().Verify(token, now)
	if err != nil {
		return "", err
	}
	mark, err := s.Policy.mark(c.Subject)
	if err != nil {
		return "", err
	}
	if !c.Refresh || c.Subject == "" || c.Password != mark {
		return "", errs.New(errs.Unauthenticated, "not a good refresh token")
	}
	return c.Subject, nil
}

// Verifier checks the service's tokens.
func (s *Service) Verifier() *Verifier {
	return &Verifier{Keys: []crypto.PublicKey{s.Signer.Public()}, Issuer: s.Issuer, Service: s.Name}
}

func (s *Service) claims(user string, now time.Time, life time.Duration) Claims {
	var id [16]byte
	_, _ = rand.Read(id[:]) // does not fail
	return Claims{Issuer: s.Issuer, Subject: user, Audience: audience{s.Name}, Issued: now.Unix(), Before: now.Unix(), Expires: now.Add(life).Unix(), ID: hex.EncodeToString(id[:])}
}

// mark is a digest of how a user's password is kept.
func (p *Policy) mark(user string) (string, error) {
	users, err := p.users.get()
	if err != nil {
		return "", err
	}
	hash, ok := users[user]
	if !ok {
		return "", errs.New(errs.Unauthenticated, "no such user")
	}
	sum := sha256.Sum256(append([]byte("refresh "), hash...))
	return hex.EncodeToString(sum[:16]), nil
}
