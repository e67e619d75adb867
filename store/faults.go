package store

import (
	"errors"

	"github.com/go-sql-driver/mysql"
	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// fault says whose an error is, and with that what to do about it.
type fault int

const (
	// databases is everything that isn't one of the others: down, full, slow. It is waited out.
	databases fault = iota
	// clash is a row that is there already: another writer was faster.
	clash
	// deadlocked is a transaction that the database gave up for another one's sake.
	deadlocked
	// records is SQLSTATE class 22 or 23: a value that doesn't fit, or a constraint.
	records
)

// MySQL's error numbers.
const (
	mysqlDuplicate = 1062
	mysqlDeadlock  = 1213
	// mysqlBadText is a text that is none in the column's character set. MySQL, unlike MariaDB, gives it the class of everything else.
	mysqlBadText = 1366
)

func faultOf(err error) fault {
	if errors.Is(err, errOvertaken) {
		return clash
	}
	var m *mysql.MySQLError
	if errors.As(err, &m) {
		class := string(m.SQLState[:2])
		switch {
		case m.Number == mysqlDuplicate:
			return clash
		case m.Number == mysqlDeadlock:
			return deadlocked
		case class == "22" || class == "23" || m.Number == mysqlBadText:
			return records
		}
		return databases
	}
	var l *sqlite.Error
	if errors.As(err, &l) {
		switch code := l.Code(); {
		case code == lib.SQLITE_CONSTRAINT_UNIQUE || code == lib.SQLITE_CONSTRAINT_PRIMARYKEY:
			return clash
		// What SQLSTATE calls class 23, and 22.
		case code&0xff == lib.SQLITE_CONSTRAINT, code&0xff == lib.SQLITE_MISMATCH, code&0xff == lib.SQLITE_TOOBIG:
			return records
		}
	}
	return databases
}

// busy reports whether SQLite says that somebody else has the lock.
func busy(err error) bool {
	var l *sqlite.Error
	return errors.As(err, &l) && l.Code()&0xff == lib.SQLITE_BUSY
}

// Refused reports whether an error is the word of a database that is there: a user or a password that it doesn't know (SQLSTATE class
// 28), a database, a table or a right that it doesn't have (42). Waiting doesn't help.
func Refused(err error) bool {
	var m *mysql.MySQLError
	if !errors.As(err, &m) {
		return false
	}
	class := string(m.SQLState[:2])
	return class == "28" || class == "42"
}

func mysqlNumber(err error) (uint16, bool) {
	var m *mysql.MySQLError
	if errors.As(err, &m) {
		return m.Number, true
	}
	return 0, false
}
