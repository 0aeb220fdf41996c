module batch

go 1.21
