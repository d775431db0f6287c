package dns

import (
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// BenchmarkRate asks for names of a network from eight clients at once, over real
// sockets: questions per second and the time that one in a hundred exceeds. The
// clients' own work is in the figures.
func BenchmarkRate(b *testing.B) {
	_, addr := serve(b, Options{}, town())
	const clients = 8
	times := make([][]time.Duration, clients)
	var work sync.WaitGroup
	began := time.Now()
	for i := range clients {
		work.Go(func() {
			c, err := net.Dial("udp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			q, buf := ask(b, "www.", dnsmessage.TypeA, nil), make([]byte, 512)
			for range b.N/clients + 1 {
				asked := time.Now()
				c.SetDeadline(asked.Add(5 * time.Second))
				if _, err := c.Write(q); err != nil {
					b.Error(err)
					return
				}
				if _, err := c.Read(buf); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(asked))
			}
		})
	}
	work.Wait()
	all := slices.Concat(times...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/time.Since(began).Seconds(), "questions/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "ms-p99")
}
