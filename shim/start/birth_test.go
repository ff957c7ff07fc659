package start

import (
	"testing"
	"time"
)

func TestBirthPhases(t *testing.T) {
	at := time.Now()
	b := &Birth{
		Executed: at.Add(-20 * time.Millisecond), Server: at.Add(-14 * time.Millisecond),
		Main: at.Add(-9 * time.Millisecond), Ready: at.Add(-2 * time.Millisecond),
	}
	var sum float64
	for i, p := range b.phases(at) {
		if want := []string{"bootstrap", "exec of the server", "server"}[i]; p.Name != want || p.MS <= 0 || p.AtMS != sum-20 {
			t.Errorf("phase %d: %+v", i, p)
		}
		sum += p.MS
	}
	if sum != 18 {
		t.Errorf("the phases last %v ms together", sum)
	}
	if again := b.phases(at); again != nil {
		t.Errorf("a second container waited for %+v", again)
	}
	for _, unknown := range []*Birth{nil, {}, {Executed: at}} {
		if p := unknown.phases(at); p != nil {
			t.Errorf("%+v: %+v", unknown, p)
		}
	}
}
