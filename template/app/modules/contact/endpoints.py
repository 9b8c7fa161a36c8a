"""Routes of the contact form."""

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError

from app.kit.errors import responses
from app.modules.contact.form import WrongFields
from app.modules.contact.schemas import ContactForm, ContactReceipt, FormRead
from app.modules.contact.service import Contact, count_client, show_form

router = APIRouter(prefix="/contact", tags=["contact"])


@router.get("/status", summary="Load the contact form")
async def read_form() -> FormRead:
    """Tell which fields the form has, with a stamp that is sent along and is good for one message."""
    return show_form()


@router.post(
    "", status_code=202, summary="Send a message", dependencies=[Depends(count_client)], responses=responses(409)
)
async def send_message(form: ContactForm, contact: Contact) -> ContactReceipt:
    """Send a message to who runs the service. What was sent twice with the same stamp is taken once."""
    try:
        await contact.take(form)
    except WrongFields as error:
        raise RequestValidationError(error.problems) from None
    return ContactReceipt(detail="Thank you. We have your message.")
