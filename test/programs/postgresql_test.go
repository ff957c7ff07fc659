package programs

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/containerd-snap/snap/test/harness/run"
)

// TestPostgreSQL: processes that share memory, of another user than root, and a
// transaction that is not finished at the capture. The client is psql.
func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	w := want(t, "postgresql", []oci.SpecOpts{oci.WithUser("postgres")}, "/app/postgresql")
	client := w
	client.Args = []string{"/usr/bin/sleep", "600"}
	survives(t, w, &postgresql{client: run.New(t, shared, client), want: client})
}

type postgresql struct {
	// client is where psql runs: a container in the same network.
	client *run.Container
	want   run.Want
	// session is the psql that holds a transaction open.
	session *run.Execution
}

// psql runs statements in one session. What it printed comes back, a row a line.
func (p *postgresql) psql(i *instance, statements ...string) (string, error) {
	args := p.command(i)
	for _, s := range statements {
		args = append(args, "-c", s)
	}
	out, code := p.client.Exec(args...)
	out = strings.TrimSpace(out)
	if code != 0 {
		return out, fmt.Errorf("psql: exit status %d: %s", code, out)
	}
	return out, nil
}

// command is psql, bare of what is for people.
func (p *postgresql) command(i *instance) []string {
	return []string{"psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", i.address}
}

// says checks what a query answers.
func (p *postgresql) says(i *instance, sql, want string) error {
	got, err := p.psql(i, sql)
	if err == nil && got != want {
		err = fmt.Errorf("%s: %q, want %q", sql, got, want)
	}
	return err
}

// unfinished locks a row and takes a key.
const unfinished = `
BEGIN;
UPDATE account SET balance = 0 WHERE id = 1;
INSERT INTO change (name) VALUES ('unfinished');
SELECT 'open';
`

func (p *postgresql) load(i *instance) error {
	if err := (&instance{Container: p.client, lan: i.lan, address: "10.97.0.253"}).start(p.want); err != nil {
		return err
	}
	if err := eventually(i.T, patience, func() error { return p.says(i, "SELECT 1", "1") }); err != nil {
		return err
	}
	_, err := p.psql(i,
		"CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL)",
		"INSERT INTO account SELECT i, i * 7 FROM generate_series(1, 50000) AS i",
		"CREATE TABLE change (at serial, name text PRIMARY KEY)")
	if err != nil {
		return err
	}
	p.session = p.client.NewExec(false, p.command(i)...)
	if err := p.session.Start(run.Context(i.T)); err != nil {
		return err
	}
	return say(i.T, p.session, unfinished, "open")
}

// goesOn: the transaction ends as its client wishes.
func (p *postgresql) goesOn(i *instance) error {
	if err := say(i.T, p.session, "COMMIT;\nSELECT 'committed';\n", "committed"); err != nil {
		return err
	}
	if err := p.says(i, "SELECT balance FROM account WHERE id = 1", "0"); err != nil {
		return err
	}
	// Its traces go, so that the same can be asked of all.
	_, err := p.psql(i, "UPDATE account SET balance = 7 WHERE id = 1; DELETE FROM change WHERE name = 'unfinished'")
	return err
}

// say writes to a psql and waits for what it answers.
func say(t *testing.T, session *run.Execution, sql, answer string) error {
	if _, err := io.WriteString(session.Stdin, sql); err != nil {
		return err
	}
	return eventually(t, run.Deadline, func() error {
		if out := session.Out.String(); !strings.Contains(out, answer) {
			return fmt.Errorf("psql does not say %q, but %q", answer, out)
		}
		return nil
	})
}

func (p *postgresql) holds(i *instance, names ...string) error {
	// In a clone the server learns that its client is gone, and undoes what that began.
	err := eventually(i.T, run.Deadline, func() error {
		return p.says(i, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'", "0")
	})
	if err != nil {
		return err
	}
	const rows = `SELECT count(*), sum(balance),
		string_agg(id || '=' || balance, ',' ORDER BY id) = (SELECT string_agg(n || '=' || n * 7, ',' ORDER BY n) FROM generate_series(1, 50000) AS n)
		FROM account`
	if err := p.says(i, rows, "50000|8750175000|t"); err != nil {
		return err
	}
	return p.says(i, "SELECT string_agg(name, ' ' ORDER BY at) FROM change", strings.Join(names, " "))
}

// change takes the row and the key that were locked at the capture, has the server write
// all that it holds, and look at the rows with several processes at once.
func (p *postgresql) change(i *instance, name string) error {
	_, err := p.psql(i,
		"SET lock_timeout = '20s'",
		"UPDATE account SET balance = balance WHERE id = 1",
		"BEGIN", "INSERT INTO change (name) VALUES ('unfinished')", "ROLLBACK",
		fmt.Sprintf("INSERT INTO change (name) VALUES ('%s')", name),
		"CHECKPOINT", "VACUUM account")
	if err != nil {
		return err
	}
	plan, err := p.psql(i,
		"SET parallel_setup_cost = 0", "SET parallel_tuple_cost = 0", "SET min_parallel_table_scan_size = 0",
		"SET max_parallel_workers_per_gather = 2",
		"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT sum(balance) FROM account")
	if err == nil && !strings.Contains(plan, "Workers Launched: 2") {
		err = fmt.Errorf("no two workers helped: %s", plan)
	}
	return err
}
