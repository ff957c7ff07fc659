// Package deps holds the import rules of the project's packages as a test, each
// rule with its reason. It has no code.
package deps
