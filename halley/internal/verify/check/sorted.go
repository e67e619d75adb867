package check

import (
	"cmp"
	"maps"
	"slices"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedSeqs[V any](m map[int64]V) []int64 { return slices.Sorted(maps.Keys(m)) }

func sortedViews[V any](m map[view]V) []view {
	return slices.SortedFunc(maps.Keys(m), func(a, b view) int {
		return cmp.Or(cmp.Compare(a.conversation, b.conversation), cmp.Compare(a.device, b.device))
	})
}
