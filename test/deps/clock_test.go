package deps

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"testing"
)

// clock are the functions of package time that read or wait for the clock.
var clock = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "Tick", "NewTimer", "NewTicker"}

// A decision, and the data that it is about, have no clock: the same arguments
// give the same decision, tomorrow and in a test.
func TestNoClock(t *testing.T) {
	files := 0
	for _, p := range load(t) {
		if !under(p.short(), "checkpoint$", "checkpoint/match", "checkpoint/retain", "checkpoint/tally") {
			continue
		}
		for _, name := range p.GoFiles {
			files++
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range uses(f) {
				t.Errorf("%s reads the clock: take the time as an argument", fset.Position(at))
			}
		}
	}
	if files == 0 {
		t.Error("no file was looked at")
	}
}

func uses(f *ast.File) []token.Pos {
	var found []token.Pos
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, s.Sel.Name) {
				found = append(found, s.Pos())
			}
		}
		return true
	})
	return found
}

func TestClockIsCaught(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\nimport \"time\"\nvar a = time.Now()\nvar b time.Time\nvar c = time.Since", parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(uses(f)); n != 2 {
		t.Errorf("%d uses of the clock found, want 2", n)
	}
}
