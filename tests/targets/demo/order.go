package main

const ordersPerDay = 64

// What a customer wants.
type order struct {
	number int
	items  []item
}

type item struct {
	department int
	wish       string // in the customer's own words
	quantity   int64
}

// The nth order of every day.
func orderOfDay(number int) order {
	o := order{number: number}
	for i := 0; i < 3; i++ {
		seed := number*7 + i*5
		o.items = append(o.items, item{
			department: seed % departments,
			wish:       "  " + qualities[seed%len(qualities)] + "  " + customersWords[(seed/3)%len(customersWords)] + " ",
			quantity:   int64(1 + seed%12),
		})
	}
	return o
}

// The total of an order, in cents.
func handleOrder(shop *shop, o order) (int64, error) {
	var total int64
	for _, item := range o.items {
		price, err := priceOf(shop, item)
		if err != nil {
			return 0, err
		}
		total += price
	}
	return total - rebate(total, o.number), nil
}

// What the article that fits the wish best costs in that quantity, in cents.
func priceOf(shop *shop, item item) (int64, error) {
	article, err := shop.bestMatch(item.department, item.wish)
	if err != nil {
		return 0, err
	}
	price := article.cents * item.quantity
	if item.quantity >= 10 {
		price -= price / 20
	}
	return price, nil
}

// Every eighth order is a regular customer's.
func rebate(total int64, number int) int64 {
	if number%8 == 0 {
		return total / 50
	}
	return 0
}
