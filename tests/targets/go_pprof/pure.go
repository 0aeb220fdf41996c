//go:build !mixed

package main

import "gotarget"

// mixed has no C in this variant.
//
//go:noinline
func mixed(x uint64) uint64 {
	for i := 0; i < 9*unit; i++ {
		x = gotarget.Step(x)
	}
	return x
}
