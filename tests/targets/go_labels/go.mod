module go_labels

go 1.21

require gotarget v0.0.0

replace gotarget => ../gotarget
