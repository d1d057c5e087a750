// loss.h - the word every loss takes.
#ifndef DLUA_LOSS_H
#define DLUA_LOSS_H

// Positions of the words of reduction:e{mean|sum|none} and, for kl_div, batchmean.
enum { DLUA_MEAN, DLUA_SUM, DLUA_NONE, DLUA_BATCHMEAN };

#endif
