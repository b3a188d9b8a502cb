//! A man in the middle: between devices made with the SDK and the real platform stands somebody who cuts what passes into
//! packets and changes, swallows, forges, repeats and relays them (osap-wire 13.7). Each of his habits is seen through or does
//! no harm, the platform tells of it, and when he goes away everything is as it was.

mod das;
mod lbs;
mod line;
mod recorded;
mod subject;
mod tls;
