-- A buyer is a number without order, so in an index by buyer each new booking went to a page of its own: the pages of a
-- group were as many as its bookings, and writing them was half of a booking's cost (docs/decisions). By blocks of 4,096
-- bookings, what is new goes to the few pages of the last block; whoever looks for a buyer asks block by block.
DROP INDEX booking_buyer;
CREATE INDEX booking_buyer ON booking (id >> 12, buyer);
