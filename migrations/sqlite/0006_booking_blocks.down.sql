DROP INDEX booking_buyer;
CREATE INDEX booking_buyer ON booking (buyer);
