DROP TABLE event_document;
