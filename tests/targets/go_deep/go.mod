module go_deep

go 1.21

require gotarget v0.0.0

replace gotarget => ../gotarget
