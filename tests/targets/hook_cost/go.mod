module hook_cost

go 1.21
