package nat

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// mark begins the comment of rules that are put into chains of others.
const mark = "gantry: "

// Drops returns the base chains of other programs, of hooks input and forward,
// that drop what their rules do not accept, with the links that rules of ours
// let through.
func (r *Rules) Drops() ([]Chain, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, err := r.c.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	var out []Chain
	for _, c := range all {
		hook := hookName(c)
		if hook == "" || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop || c.Table.Name == r.table.Name {
			continue
		}
		d := Chain{Family: familyName(c.Table.Family), Table: c.Table.Name, Name: c.Name, Hook: hook}
		rules, err := r.c.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("list rules of %s: %w", d, err)
		}
		for _, ru := range rules {
			if link, ok := strings.CutPrefix(comment(ru), mark); ok && !slices.Contains(d.Passes, link) {
				d.Passes = append(d.Passes, link)
			}
		}
		out = append(out, d)
	}
	return out, nil
}

// LetThrough makes a chain of another program accept what goes to and comes
// from links, after all of its own rules: what those drop stays dropped. For one of
// LegacyDrops the tool that made it has to be there.
func (r *Rules) LetThrough(ch Chain, links []string) error {
	if ch.legacy() {
		return letThroughLegacy(ch, links)
	}
	family, ok := map[string]nftables.TableFamily{"ip": nftables.TableFamilyIPv4, "ip6": nftables.TableFamilyIPv6, "inet": nftables.TableFamilyINet}[ch.Family]
	if !ok {
		return fmt.Errorf("chain %s: its family is not of IP", ch)
	}
	t := &nftables.Table{Family: family, Name: ch.Table}
	c := &nftables.Chain{Name: ch.Name, Table: t}
	return wrap("let containers through "+ch.String(), r.transact(func(conn *nftables.Conn) error {
		for _, l := range links {
			if slices.Contains(ch.Passes, l) {
				continue
			}
			for _, p := range []part{iifname(l), oifname(l)} {
				conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: append(slices.Clone(p.exprs), expr.Any(verdictAccept.exprs[0])), UserData: userComment(mark + l)})
			}
		}
		return nil
	}))
}

func hookName(c *nftables.Chain) string {
	switch {
	case c.Hooknum == nil || c.Type != nftables.ChainTypeFilter:
		return ""
	case *c.Hooknum == *nftables.ChainHookForward:
		return "forward"
	case *c.Hooknum == *nftables.ChainHookInput:
		return "input"
	}
	return ""
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return fmt.Sprintf("family-%d", f)
}

// A rule's user data are type, length, value; type 0 is the comment as nft(8)
// writes it, with its terminating zero.
func userComment(s string) []byte { return append([]byte{0, byte(len(s) + 1)}, s+"\x00"...) }

func comment(r *nftables.Rule) string {
	d := r.UserData
	for len(d) >= 2 && len(d) >= 2+int(d[1]) {
		if d[0] == 0 {
			return strings.TrimRight(string(d[2:2+int(d[1])]), "\x00")
		}
		d = d[2+int(d[1]):]
	}
	return ""
}
