package main

// extern int called_back(int);
// static int call_back(int n) { return called_back(n) + 1; }
import "C"

func init() {
	if int(C.call_back(1)) != 3 {
		panic("call_back")
	}
}

//export called_back
func called_back(n C.int) C.int { return n + 1 }

//export answer_in_library
func answer_in_library() { answer() }
