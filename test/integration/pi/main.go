// Command pi is the program that the integration tests crash: it computes the digits
// of pi one after the other and appends them to a file, for hours if need be. It holds
// what it has computed in memory only, and so must go on exactly where it was: with
// each digit it checks that the file is as long as it remembers, and ends if not.
package main

import (
	"fmt"
	"log"
	"math/big"
	"os"
	"time"
)

func main() {
	log.SetFlags(0)
	file, err := os.OpenFile("/pi", os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	s := newSpigot()
	for written := int64(0); ; written++ {
		st, err := file.Stat()
		if err != nil {
			log.Fatal(err)
		}
		if st.Size() != written {
			fmt.Printf("the file holds %d digits, the memory %d\n", st.Size(), written)
			os.Exit(3)
		}
		if _, err := file.WriteString(s.next()); err != nil {
			log.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

// spigot is Gibbons' streaming algorithm: it gives digits without end, and keeps all
// that it needs for the next in six numbers.
type spigot struct{ q, r, t, k, n, l *big.Int }

func newSpigot() *spigot {
	i := big.NewInt
	return &spigot{q: i(1), r: i(0), t: i(1), k: i(1), n: i(3), l: i(3)}
}

func (s *spigot) next() string {
	mul := func(xs ...*big.Int) *big.Int {
		p := big.NewInt(1)
		for _, x := range xs {
			p.Mul(p, x)
		}
		return p
	}
	add := func(a, b *big.Int) *big.Int { return new(big.Int).Add(a, b) }
	sub := func(a, b *big.Int) *big.Int { return new(big.Int).Sub(a, b) }
	i := big.NewInt
	for {
		if sub(add(mul(i(4), s.q), s.r), s.t).Cmp(mul(s.n, s.t)) < 0 {
			digit := s.n.String()
			r := mul(i(10), sub(s.r, mul(s.n, s.t)))
			s.n = sub(new(big.Int).Quo(mul(i(10), add(mul(i(3), s.q), s.r)), s.t), mul(i(10), s.n))
			s.q, s.r = mul(i(10), s.q), r
			return digit
		}
		r := mul(add(mul(i(2), s.q), s.r), s.l)
		n := new(big.Int).Quo(add(mul(s.q, add(mul(i(7), s.k), i(2))), mul(s.r, s.l)), mul(s.t, s.l))
		s.q, s.t = mul(s.q, s.k), mul(s.t, s.l)
		s.l, s.k = add(s.l, i(2)), add(s.k, i(1))
		s.n, s.r = n, r
	}
}
