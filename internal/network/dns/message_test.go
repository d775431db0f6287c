package dns

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ask renders a question as another implementation does.
func ask(t testing.TB, name string, kind dnsmessage.Type, change func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edns gives a question options.
func edns(size uint16, do bool) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) {
		h := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Type: dnsmessage.TypeOPT, Class: dnsmessage.Class(size)}
		if do {
			h.TTL = 0x8000
		}
		m.Additionals = append(m.Additionals, dnsmessage.Resource{Header: h, Body: &dnsmessage.OPTResource{}})
	}
}

func read(t testing.TB, b []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return m
}

// told are the answers of a message, as text.
func told(m dnsmessage.Message) string {
	var out []string
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			out = append(out, b.PTR.String())
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// town is a view of two networks.
func town() *View {
	front, back := newZone("Front"), newZone("back.net")
	front.Set("1", Names{All: []string{"web", "111111111111", "www"}, Addrs: addrs("10.1.0.2", "fd00::2")})
	front.Set("2", Names{All: []string{"web2", "www"}, Addrs: addrs("10.1.0.3")})
	back.Set("3", Names{All: []string{"DB.main", "db"}, Addrs: addrs("10.2.0.2")})
	back.Set("4", Names{All: []string{"six"}, Addrs: addrs("fd01::6")})
	return &View{
		Scopes:    []Scope{{Zone: front, Links: map[string]string{"mine": "web2", "web": "nosuch"}}, {Zone: back}},
		Upstreams: func() []Upstream { return nil },
	}
}

func TestNames(t *testing.T) {
	v := town()
	for _, c := range []struct {
		name string
		kind dnsmessage.Type
		want string // "-" for: asked elsewhere
	}{
		{"web.", dnsmessage.TypeA, "10.1.0.2"},
		{"WeB.", dnsmessage.TypeA, "10.1.0.2"},
		{"web.", dnsmessage.TypeAAAA, "fd00::2"},
		{"web2.", dnsmessage.TypeAAAA, ""}, // there is no such data, but the name is
		{"six.", dnsmessage.TypeA, ""},
		{"six.", dnsmessage.TypeAAAA, "fd01::6"},
		{"web.", dnsmessage.TypeMX, ""},
		{"web.", dnsmessage.TypeALL, "10.1.0.2 fd00::2"},
		{"www.", dnsmessage.TypeA, "10.1.0.2 10.1.0.3"},
		{"www.front.", dnsmessage.TypeA, "10.1.0.2 10.1.0.3"},
		{"111111111111.", dnsmessage.TypeA, "10.1.0.2"},
		{"db.main.", dnsmessage.TypeA, "10.2.0.2"},
		{"db.main.back.net.", dnsmessage.TypeA, "10.2.0.2"},
		{"db.back.net.", dnsmessage.TypeA, "10.2.0.2"},
		{"db.front.", dnsmessage.TypeA, "-"},
		{"mine.", dnsmessage.TypeA, "10.1.0.3"},
		{"mine.front.", dnsmessage.TypeA, "10.1.0.3"},
		{"nosuch.", dnsmessage.TypeA, "-"},
		{"example.org.", dnsmessage.TypeA, "-"},
		{".", dnsmessage.TypeNS, "-"},
		{"2.0.1.10.in-addr.arpa.", dnsmessage.TypePTR, "web.front."},
		{"2.0.2.10.in-addr.arpa.", dnsmessage.TypePTR, "db.main.back.net."},
		{"9.0.2.10.in-addr.arpa.", dnsmessage.TypePTR, "-"},
		{"2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "web.front."},
	} {
		q, wrong := parseQuery(ask(t, c.name, c.kind, nil))
		if wrong != fine {
			t.Errorf("%s: %d", c.name, wrong)
			continue
		}
		a, known := v.resolve(&q)
		got := "-"
		if known {
			m := read(t, q.reply(nil, a, minUDP))
			if got = told(m); m.RCode != dnsmessage.RCodeSuccess || !m.Response || !m.RecursionAvailable || !m.RecursionDesired || m.ID != be.Uint16(q.raw) || len(m.Questions) != 1 {
				t.Errorf("%s: %+v", c.name, m)
			}
		}
		if got != c.want {
			t.Errorf("%s %v: %q, not %q", c.name, c.kind, got, c.want)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	for _, c := range []struct {
		name  string
		v     View
		rcode int // -1: asked elsewhere
	}{
		{"one.", View{}, rcodeNoName},
		{"one.two.", View{}, rcodeServer},
		{"one.", View{Dotted: true, Upstreams: func() []Upstream { return nil }}, rcodeNoName},
		{"one.two.", View{Dotted: true, Upstreams: func() []Upstream { return nil }}, -1},
		{"one.", View{Upstreams: func() []Upstream { return nil }}, -1},
	} {
		q, _ := parseQuery(ask(t, c.name, dnsmessage.TypeA, nil))
		a, known := c.v.unknown(&q)
		if known != (c.rcode >= 0) || known && a.rcode != c.rcode {
			t.Errorf("%s: %+v %v", c.name, a, known)
		}
	}
}

func TestZoneChanges(t *testing.T) {
	z := newZone("n")
	see := func(name string) string {
		var out []string
		for _, a := range z.lookup(nil, name) {
			out = append(out, a.String())
		}
		slices.Sort(out)
		return strings.Join(out, " ")
	}
	z.Set("1", Names{All: []string{"a", "x"}, Addrs: addrs("10.0.0.1")})
	z.Set("2", Names{All: []string{"b", "x"}, Addrs: addrs("10.0.0.2")})
	if see("x") != "10.0.0.1 10.0.0.2" {
		t.Error(see("x"))
	}
	z.Set("1", Names{All: []string{"c", "x"}, Addrs: addrs("10.0.0.3")}) // renamed and moved
	if see("a") != "" || see("c") != "10.0.0.3" || see("x") != "10.0.0.2 10.0.0.3" {
		t.Error(see("a"), see("c"), see("x"))
	}
	if _, ok := z.of(addrs("10.0.0.1")[0]); ok {
		t.Error("an address that was given up has a name")
	}
	z.Set("1", Names{})
	z.Set("2", Names{})
	if !z.Empty() || see("x") != "" || see("b") != "" {
		t.Error("names stay")
	}
}

func TestErrorsOfQuestions(t *testing.T) {
	good := ask(t, "web.", dnsmessage.TypeA, nil)
	change := func(f func(b []byte) []byte) []byte { return f(bytes.Clone(good)) }
	for _, c := range []struct {
		what string
		b    []byte
		want trouble
	}{
		{"good", good, fine},
		{"short", good[:11], ignore},
		{"an answer", change(func(b []byte) []byte { b[2] |= 0x80; return b }), ignore},
		{"update", change(func(b []byte) []byte { b[2] |= 5 << 3; return b }), rcodeNotImpl},
		{"no question", change(func(b []byte) []byte { b[5] = 0; return b }), rcodeFormat},
		{"two questions", change(func(b []byte) []byte { b[5] = 2; return b }), rcodeFormat},
		{"cut", good[:len(good)-1], rcodeFormat},
		{"a reference", change(func(b []byte) []byte { b[12] = 0xc0; return b }), rcodeFormat},
		{"too long", append(bytes.Clone(good), make([]byte, maxQuery)...), rcodeFormat},
		{"long name", ask(t, "a.", dnsmessage.TypeA, func(m *dnsmessage.Message) {
			m.Questions[0].Name = dnsmessage.MustNewName(strings.Repeat("aaaaaaaaa.", 25) + "bbb.")
		}), fine},
		{"transfer", ask(t, "web.", dnsmessage.Type(typeAXFR), nil), rcodeRefused},
		{"version of options", ask(t, "web.", dnsmessage.TypeA, func(m *dnsmessage.Message) { edns(1232, false)(m); m.Additionals[0].Header.TTL = 1 << 16 }), rcodeBadVers},
		{"options twice", ask(t, "web.", dnsmessage.TypeA, func(m *dnsmessage.Message) { edns(1232, false)(m); edns(1232, false)(m) }), rcodeFormat},
	} {
		if _, got := parseQuery(c.b); got != c.want {
			t.Errorf("%s: %d, not %d", c.what, got, c.want)
		}
	}
}

func TestAnswersFit(t *testing.T) {
	var many []netip.Addr
	for i := range 200 {
		many = append(many, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))
	}
	for _, c := range []struct {
		change func(*dnsmessage.Message)
		limit  int
	}{{nil, 512}, {edns(1232, true), 1232}, {edns(100, false), 512}, {edns(60000, false), maxUDP}} {
		q, wrong := parseQuery(ask(t, "web.", dnsmessage.TypeA, c.change))
		if wrong != fine || q.size != c.limit {
			t.Fatalf("%d: %d %d", c.limit, wrong, q.size)
		}
		b := q.reply(nil, answers{addrs: many}, q.size)
		m := read(t, b)
		if len(b) > c.limit || m.Truncated != (c.limit < maxUDP) || len(m.Answers) == 0 || (len(m.Additionals) == 1) != (c.change != nil) {
			t.Errorf("limit %d: %d bytes, cut %v, %d answers, %d more", c.limit, len(b), m.Truncated, len(m.Answers), len(m.Additionals))
		}
		if c.limit == 1232 && !m.Additionals[0].Header.DNSSECAllowed() {
			t.Error("the wish for signatures was not given back")
		}
	}
}

// theirs is an answer of a name server.
func theirs(t testing.TB, q []byte, change func(*dnsmessage.Message)) []byte {
	m := read(t, q)
	m.Response, m.RecursionAvailable = true, true
	change(&m)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func a(name string, ttl uint32, addr [4]byte) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Class: dnsmessage.ClassINET, TTL: ttl}, Body: &dnsmessage.AResource{A: addr}}
}

func soa(ttl, minimum uint32) dnsmessage.Resource {
	n := dnsmessage.MustNewName("org.")
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: n, Class: dnsmessage.ClassINET, TTL: ttl}, Body: &dnsmessage.SOAResource{NS: n, MBox: n, MinTTL: minimum}}
}

func TestOthersAnswers(t *testing.T) {
	raw := ask(t, "Example.org.", dnsmessage.TypeA, edns(1232, false))
	q, _ := parseQuery(raw)
	id := be.Uint16(raw)
	for _, c := range []struct {
		what   string
		change func(*dnsmessage.Message)
		ttl    uint32
		ok     bool
	}{
		{"answers", func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{a("example.org.", 300, [4]byte{1}), a("example.org.", 60, [4]byte{2})}
		}, 60, true},
		{"long", func(m *dnsmessage.Message) { m.Answers = []dnsmessage.Resource{a("example.org.", 1e6, [4]byte{1})} }, maxTTL, true},
		{"negative time", func(m *dnsmessage.Message) {
			m.Answers = []dnsmessage.Resource{a("example.org.", 1<<31+5, [4]byte{1})}
		}, 0, true},
		{"no such name", func(m *dnsmessage.Message) {
			m.RCode, m.Authorities = dnsmessage.RCodeNameError, []dnsmessage.Resource{soa(900, 120)}
		}, 120, true},
		{"no such data", func(m *dnsmessage.Message) { m.Authorities = []dnsmessage.Resource{soa(60, 9999)} }, 60, true},
		{"nothing said of how long", func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeNameError }, 0, true},
		{"failure", func(m *dnsmessage.Message) { m.RCode = dnsmessage.RCodeServerFailure }, 0, true},
		{"cut", func(m *dnsmessage.Message) {
			m.Truncated, m.Answers = true, []dnsmessage.Resource{a("example.org.", 300, [4]byte{1})}
		}, 0, true},
		{"another's", func(m *dnsmessage.Message) { m.ID++ }, 0, false},
		{"to another question", func(m *dnsmessage.Message) { m.Questions[0].Name = dnsmessage.MustNewName("Example.com.") }, 0, false},
		{"to another type", func(m *dnsmessage.Message) { m.Questions[0].Type = dnsmessage.TypeAAAA }, 0, false},
		{"no answer", func(m *dnsmessage.Message) { m.Response = false }, 0, false},
		{"in other letters", func(m *dnsmessage.Message) {
			m.Questions[0].Name, m.Answers = dnsmessage.MustNewName("example.ORG."), []dnsmessage.Resource{a("example.org.", 5, [4]byte{1})}
		}, 5, true},
	} {
		r, ok := readResponse(theirs(t, raw, c.change), id, &q)
		if ok != c.ok || ok && r.ttl != c.ttl {
			t.Errorf("%s: %v, for %d s", c.what, ok, r.ttl)
		}
		if !ok {
			continue
		}
		m := read(t, r.render(nil, &q, 3, minUDP))
		if m.ID != id || m.Questions[0].Name.String() != "Example.org." || m.Truncated != r.cut {
			t.Errorf("%s: given as %+v", c.what, m.Header)
		}
		for i, x := range m.Answers {
			if was := read(t, r.raw).Answers[i].Header.TTL; was < 1<<31 && x.Header.TTL != was-3 {
				t.Errorf("%s: a time of %d became %d", c.what, was, x.Header.TTL)
			}
		}
		if !r.cut && len(m.Additionals) > 0 && m.Additionals[0].Header.Type == dnsmessage.TypeOPT && m.Additionals[0].Header.Class != 1232 {
			t.Errorf("%s: options changed", c.what)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(16 << 10)
	now := time.Now()
	for i := range 1000 {
		c.put(string(rune('a'+i%26))+strings.Repeat("x", i%50), response{raw: make([]byte, 100), ttl: 10}, now)
		if c.used > c.room || len(c.byKey) != c.recent.Len() {
			t.Fatalf("%d bytes of %d, %d %d", c.used, c.room, len(c.byKey), c.recent.Len())
		}
	}
	c.put("k", response{raw: []byte("1"), ttl: 10}, now)
	if _, age, ok := c.get("k", now.Add(9*time.Second)); !ok || age != 9 {
		t.Error("a fresh answer was not kept:", age)
	}
	if _, _, ok := c.get("k", now.Add(10*time.Second)); ok {
		t.Error("an answer was kept too long")
	}
	c.put("0", response{raw: []byte("1")}, now)
	c.put("huge", response{raw: make([]byte, 8<<10), ttl: 1}, now)
	for _, key := range []string{"0", "huge"} {
		if _, _, ok := c.get(key, now); ok {
			t.Errorf("%s was kept", key)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add(ask(f, "web.", dnsmessage.TypeA, nil), theirs(f, ask(f, "web.", dnsmessage.TypeA, nil), func(m *dnsmessage.Message) { m.Answers = []dnsmessage.Resource{a("web.", 5, [4]byte{1})} }))
	f.Add(ask(f, "2.0.1.10.in-addr.arpa.", dnsmessage.TypePTR, edns(600, true)), []byte{})
	f.Add(ask(f, "www.", dnsmessage.TypeALL, edns(600, true)), []byte{0xc0})
	v := town()
	f.Fuzz(func(t *testing.T, b, other []byte) {
		q, wrong := parseQuery(b)
		if wrong == ignore {
			return
		}
		var m dnsmessage.Message
		lenient := m.Unpack(b) != nil // it is stricter with letters, and would be so with the answer
		if wrong != fine {
			if err := m.Unpack(q.reply(nil, answers{rcode: int(wrong)}, q.size)); err != nil && !lenient {
				t.Fatalf("an error can't be read: %v", err)
			}
			return
		}
		if x, known := v.resolve(&q); known {
			r := q.reply(nil, x, q.size)
			if err := m.Unpack(r); err != nil && !lenient || len(r) > q.size {
				t.Fatalf("an answer of %d bytes can't be read: %v", len(r), err)
			}
		}
		questionKey(&q, nil)
		if len(other) > 2 {
			if r, ok := readResponse(other, be.Uint16(other), &q); ok {
				if out := r.render(nil, &q, 7, q.size); len(out) > max(q.size, len(q.raw)+11) {
					t.Fatalf("%d bytes for one that takes %d", len(out), q.size)
				}
			}
		}
	})
}
