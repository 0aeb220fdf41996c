// Orders is a small pricing service: workers take orders, search a catalogue in SQLite for the articles that the
// customer's words mean best, and price them.
//
// The catalogue is searched with a function and a collation that are written in Go, which SQLite calls from the
// midst of a query; the function normalizes words in C and asks SQLite again. So its call chains go from Go to C
// to Go to C, and on to Go, because the work needs it:
//
//	main.handleOrder ─► main.priceOf ─► SQLite ─► main.goScore ─► normalize (C)
//	                                                          └─► SQLite ─► main.goCompare
//
// The orders of a day are always the same, so the takings of each day are known. The program prints
// "ready PID" when the first day was right, works until SIGTERM or until its standard input is closed, then
// prints what it did. A day with wrong takings ends it with status 1.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
)

// What every day takes, in cents.
const dayTakings = 6971359

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run() error {
	workers := min(2, runtime.NumCPU())
	runtime.GOMAXPROCS(workers)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()

	orders := make(chan order)
	invoices := make(chan invoice)
	var open sync.WaitGroup
	for i := 0; i < workers; i++ {
		open.Add(1)
		go func() {
			defer open.Done()
			work(orders, invoices)
		}()
	}

	var done counters
	for ctx.Err() == nil {
		if err := workOneDay(orders, invoices, &done); err != nil {
			return err
		}
		if done.days == 1 {
			fmt.Println("ready", os.Getpid())
		}
	}
	close(orders)
	open.Wait()
	fmt.Printf("days %d orders %d scores %d comparisons %d takings %d\n",
		done.days, done.orders, done.scores, done.comparisons, done.takings)
	return nil
}

// What the service did since it started.
type counters struct {
	days, orders, scores, comparisons, takings int64
}

// The answer to an order.
type invoice struct {
	total               int64 // cents
	scores, comparisons int64 // calls of the catalogue's function and collation
	err                 error
}

// Answers orders until there are no more.
func work(orders <-chan order, invoices chan<- invoice) {
	shop, err := openShop()
	if err == nil {
		defer shop.close()
	}
	for o := range orders {
		if err != nil {
			invoices <- invoice{err: err}
			continue
		}
		shop.scores, shop.comparisons = 0, 0
		total, err := handleOrder(shop, o)
		invoices <- invoice{total, shop.scores, shop.comparisons, err}
	}
}

// Hands out the orders of a day and checks what they took.
func workOneDay(orders chan<- order, invoices <-chan invoice, done *counters) error {
	go func() {
		for number := 0; number < ordersPerDay; number++ {
			orders <- orderOfDay(number)
		}
	}()
	var takings int64
	var failure error
	for i := 0; i < ordersPerDay; i++ {
		answer := <-invoices
		takings += answer.total
		done.scores += answer.scores
		done.comparisons += answer.comparisons
		if answer.err != nil {
			failure = answer.err
		}
	}
	if failure != nil {
		return failure
	}
	done.days++
	done.orders += ordersPerDay
	done.takings += takings
	if takings != dayTakings {
		return fmt.Errorf("day %d took %d cents instead of %d", done.days, takings, dayTakings)
	}
	return nil
}
